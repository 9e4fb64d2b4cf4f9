"""One process of the job: checks the config, then starts the run. ``launch/pretrain.sh`` runs it once a process.

What can be checked without torch is checked before torch is imported, so that a mistake shows after a second.
"""

import socket
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from glm130b.config.errors import UserError
from glm130b.config.files import check_files
from glm130b.config.load import load_config
from glm130b.config.rules import problems
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch, prepare_environment

USAGE = """\
usage: deepspeed launch/pretrain.sh CONFIG [section.key=value ...]
       bash launch/pretrain.sh CONFIG [section.key=value ...]
       torchrun --nproc-per-node N launch/pretrain.sh CONFIG [section.key=value ...]

Train the model that the YAML file CONFIG describes; section.key=value changes one of its keys. `glm130b plan CONFIG`
shows what would be run. On a machine without a GPU deepspeed sees one slot: give it --num_accelerators N, or use the
bash form, which takes N from the config. Exit status 2: something in the config or the files is to be mended; torchrun
itself ends with 1 whatever its processes end with."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one process of the job: ``[--local_rank=N] CONFIG [section.key=value ...]``.

    Exits with status 2 and without a stack trace when the user has something to mend; any other error keeps its trace.
    """
    # deepspeed passes the local rank as an argument too; LOCAL_RANK says the same.
    words = [word for word in (sys.argv[1:] if argv is None else argv) if not word.startswith("--local_rank=")]
    try:
        launch = Launch.from_environment()
    except UserError as error:
        _report(error, Launch(rank=0, local_rank=0, world_size=1))
    if not words or {"-h", "--help"} & set(words):
        if launch.rank == 0:
            print(USAGE, file=sys.stdout if words else sys.stderr)
        raise SystemExit(0 if words else UserError.exit_status)
    try:
        config = checked_config(words[0], words[1:], launch.world_size)
        prepare_environment(launch)
        from glm130b.pretrain import pretrain

        pretrain(config, launch)
    except UserError as error:
        _report(error, launch)


def checked_config(path: str, overrides: Sequence[str], world_size: int) -> RunConfig:
    """The run's config, checked against the number of processes and the files it names; raises ``UserError``."""
    config = load_config(path, overrides)
    found = problems(config, world_size=world_size)
    try:
        check_files(config)
    except UserError as error:
        found += error.problems
    if found:
        raise UserError(found)
    return config


def _report(error: UserError, launch: Launch) -> NoReturn:
    """Print the problems and end this process.

    A mistake is seen by every process, and a launcher ends them all as soon as one has ended. So rank 0 speaks at once
    and the others wait to be ended by its launcher. Who is still alive after that has a problem that rank 0 does not
    have, such as a file that is missing on this machine only: the machine's first process says so, and one that is
    alone with its problem speaks last. The wait covers the seconds by which processes start apart on a busy machine.
    """
    if launch.rank > 0:
        time.sleep(8 if launch.local_rank == 0 else 11)
    origin = f" on rank {launch.rank} ({socket.gethostname()})" if launch.rank > 0 else ""
    lines = [f"glm130b: error{origin}: {problem}" for problem in error.problems]
    print(*lines, sep="\n", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_status) from None
