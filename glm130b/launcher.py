"""One process of the job: checks the config, then starts the run. ``launch/pretrain.sh`` runs it once a process.

What can be checked without torch is checked before torch is imported, so that a mistake shows after a second.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from glm130b.config.errors import FileSystemGone, UserError
from glm130b.config.files import await_config, await_files, check_files
from glm130b.config.load import load_config
from glm130b.config.packages import missing_packages
from glm130b.config.rules import problems
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch, prepare_environment

USAGE = """\
usage: deepspeed launch/pretrain.sh CONFIG [section.key=value ...]
       bash launch/pretrain.sh CONFIG [section.key=value ...]
       bash launch/supervised.sh CONFIG [section.key=value ...]
       torchrun --nproc-per-node N launch/pretrain.sh CONFIG [section.key=value ...]

Train the model that the YAML file CONFIG describes; section.key=value changes one of its keys. `glm130b plan CONFIG`
shows what would be run. On a machine without a GPU deepspeed sees one slot: give it --num_accelerators N, or use the
bash form, which takes N from the config. The same command again goes on from the last checkpoint; supervised.sh gives
it again by itself when a process has failed. Exit status 0: the run is complete, or saved and to be started again
(docs/restarts.md); 2: something in the config or the files is to be mended; 3: the stability guard stopped the run.
torchrun itself ends with 1 whatever its processes end with."""

_STOPPED_STATUS = 3
_LONGEST_DELAY_SECONDS = 300.0


def main(argv: Sequence[str] | None = None) -> None:
    """Run one process of the job: ``[--local_rank=N] CONFIG [section.key=value ...]``.

    Exits with the run's status; without a stack trace with 2 when the user has something to mend, and with 1 when a
    file system is gone; any other error keeps its trace.
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
    _end_when_asked()
    try:
        config = checked_config(words[0], words[1:], launch)
        wait_to_restart(config, launch)
        if launch.rank == 0:
            _open_folder(Path(config.folder) / config.name, launch)
        prepare_environment(launch)
        from glm130b.pretrain import pretrain

        status = pretrain(config, launch)
    except UserError as error:
        _report(error, launch)
    # Slurm ends a job's tasks when one has ended with another status than 0: this one keeps its own.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(status)


def checked_config(path: str, overrides: Sequence[str], launch: Launch) -> RunConfig:
    """The run's config, checked against the number of processes, the packages and files that it needs. Raises
    ``UserError``; a restart waits for files, and raises ``FileSystemGone`` without them."""
    tell = partial(_tell, launch)
    config = await_config(path, overrides, tell=tell) if launch.restarts else load_config(path, overrides)
    found = problems(config, world_size=launch.world_size) + missing_packages(config)
    try:
        if launch.restarts and not found:
            await_files(config, tell=tell)
        else:
            check_files(config)
    except UserError as error:
        if isinstance(error, FileSystemGone) and not found:
            raise
        found += error.problems
    if found:
        raise UserError(found)
    return config


def _end_when_asked() -> None:
    """Who is asked to end before it trains has nothing to save, and ends with 1.

    Slurm ends all tasks when one has failed, and reports the highest status: that of a mistake (2) which only one has
    seen is to be it, not the 143 of those that it has ended. A thread listens, since the main thread handles no signal
    while it waits for the other processes in a library; it has nothing to say once the run has a handler of its own.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)

    def nothing_to_save(number: int, frame: FrameType | None) -> None:
        """The thread acts."""

    def listen() -> None:
        while os.read(heard, 1):
            if signal.getsignal(signal.SIGTERM) is nothing_to_save:
                os._exit(1)

    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, nothing_to_save)
    threading.Thread(target=listen, name="requests to end", daemon=True).start()


def _open_folder(folder: Path, launch: Launch) -> None:
    """A run's first start makes its folder before all else, so that a restart knows a missing one for a file system
    that is gone; and how the run ended the last time is over."""
    if launch.restarts == 0:
        folder.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        (folder / "ended").unlink(missing_ok=True)


def wait_to_restart(config: RunConfig, launch: Launch) -> None:
    """Give what made the job fall some time to pass, more with each restart by its supervisor.

    A run that saved and asked to be started again goes on at once, and one that the stability guard stopped stays
    stopped until its user starts it. Rank 0 alone waits, and the others for it, where all meet: so it may take the word
    away that says how the last attempt ended, and no later one trusts it.
    """
    if launch.restarts == 0:
        return
    word = ""
    with suppress(OSError):  # it is not there while a run trains
        word = (Path(config.folder) / config.name / "ended").read_text(encoding="utf-8").strip()
    if word == "stopped":
        _tell(launch, f"restart {launch.restarts}: the run was stopped for its user to look at; start it anew to go on")
        raise SystemExit(_STOPPED_STATUS)
    if launch.rank > 0 or word == "requeue":
        return
    doubled = config.supervision.restart_delay_seconds * 2.0 ** min(launch.restarts - 1, 30)
    delay = min(doubled, _LONGEST_DELAY_SECONDS, config.supervision.stall_seconds / 2)
    _tell(launch, f"restart {launch.restarts} begins in {delay:g} s")
    time.sleep(delay)


def _tell(launch: Launch, message: str) -> None:
    if launch.rank == 0:
        print(f"glm130b: {message}", flush=True)


def _report(error: UserError, launch: Launch) -> NoReturn:
    """Print the problems and end this process.

    A mistake is seen by every process, and a launcher ends them all as soon as one has ended. So rank 0 speaks at once
    and the others wait to be ended by its launcher. Who is still alive after that has a problem that rank 0 does not
    have, such as a file that is missing on this machine only: the machine's first process says so, and one that is
    alone with its problem speaks last. The wait covers the seconds by which processes start apart on a busy machine.
    """
    if launch.rank > 0:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(error.exit_status))  # Slurm reports the highest of all
        time.sleep(8 if launch.local_rank == 0 else 11)
    origin = f" on rank {launch.rank} ({socket.gethostname()})" if launch.rank > 0 else ""
    lines = [f"glm130b: error{origin}: {problem}" for problem in error.problems]
    print(*lines, sep="\n", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_status) from None
