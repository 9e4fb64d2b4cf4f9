"""The status that a run under torchrun's agent would have ended with: ``python3 launch/torchrun_status.py STATUS
PROCESSES CONFIG [section.key=value ...]`` ends with it.

STATUS is torchrun's own, 0 or 1. What the run has left in its folder, and its config, tell the rest.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from glm130b.config.errors import FileSystemGone, UserError
from glm130b.config.load import MissingConfig, load_config
from glm130b.config.packages import missing_packages
from glm130b.training.ending import Ending


def main(status: int, processes: int, words: Sequence[str]) -> int:
    try:
        config = load_config(words[0], words[1:], world_size=processes)
    except MissingConfig:
        return FileSystemGone.exit_status  # it was there before the run
    except UserError as error:
        return error.exit_status  # every process has told it before
    if missing_packages(config):
        return UserError.exit_status
    word = ""
    with suppress(OSError):  # a run that fell has left none
        word = (Path(config.folder) / config.name / "ended").read_text(encoding="utf-8").strip()
    if word in (Ending.REQUEUE.value, Ending.STOPPED.value):
        return Ending(word).exit_status(config.supervision)
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
