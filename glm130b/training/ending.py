"""How a run's process ends when nothing has failed, and how its supervisor learns what to do next."""

import sys
from enum import Enum
from pathlib import Path

from glm130b.config.supervision import SupervisionConfig


class Ending(Enum):
    """In one word, which stands in the file ``ended`` of the run's folder until the run is started again."""

    COMPLETE = "complete"
    """All samples are consumed."""
    REQUEUE = "requeue"
    """Asked to end; it has saved, and the same command goes on."""
    STOPPED = "stopped"
    """By the stability guard; it has saved, and a person should look at it before it goes on."""

    def exit_status(self, config: SupervisionConfig) -> int:
        return {Ending.COMPLETE: 0, Ending.REQUEUE: config.requeue_status, Ending.STOPPED: 3}[self]

    def write(self, folder: Path) -> None:
        """A disk that is full or gone takes the word away, and nothing else."""
        try:
            (folder / "ended").write_text(self.value + "\n", encoding="utf-8")
        except OSError as error:
            print(f"glm130b: {folder / 'ended'}: cannot be written ({error.strerror})", file=sys.stderr)

    @staticmethod
    def clear(folder: Path) -> None:
        """A run that has started has not ended."""
        (folder / "ended").unlink(missing_ok=True)
