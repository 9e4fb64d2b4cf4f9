"""Which checkpoint a run goes on from: the newest that is what was written, found by all ranks together."""

import errno
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from glm130b.checkpoint.checksums import CHECKSUMS, verify
from glm130b.checkpoint.description import Description
from glm130b.checkpoint.folder import CheckpointFolder, step_of
from glm130b.config.errors import FileSystemGone
from glm130b.config.patience import patiently
from glm130b.parallel.agreement import from_first_rank, shown_by_all
from glm130b.parallel.topology import Topology
from glm130b.training.journal import Event, Journal

_BAD_MEDIUM = frozenset({errno.EIO, errno.EREMOTEIO, errno.EBADMSG, errno.EUCLEAN})
"""What reading a bad sector, or what stands for one in a file system with checksums of its own, ends with."""


def newest_good(
    folder: CheckpointFolder,
    topology: Topology,
    journal: Journal,
    *,
    patience_seconds: float,
    until_step: int | None = None,
    enter: Callable[[str], None] = lambda phase: None,
) -> tuple[Path, Description] | None:
    """The newest undamaged checkpoint, of at most ``until_step`` for a rewind; None for a run that has none.

    Collective. A damaged one is told and set aside, and the one before is taken. What cannot be read is waited for;
    after that a checkpoint of which the disk does not give a file back is told and passed over.

    Raises UserError, on all ranks alike, when a run that has had checkpoints has no good one, and FileSystemGone when
    they still cannot be read: never is a run silently started anew, and never is trouble taken for damage.
    """

    search = partial(_search, folder, topology, journal, good=set(), until_step=until_step, enter=enter)
    try:
        return patiently(
            search,
            seconds=patience_seconds,
            may_pass=lambda error: isinstance(error, (OSError, FileSystemGone)),
            tell=lambda message: journal.tell(Event("file system gone", 0, message)),
        )
    except (OSError, FileSystemGone):
        pass
    try:
        return search(passes_over_unreadable=True)
    except OSError as error:
        raise FileSystemGone(
            f"{error.filename or folder.path}: {error.strerror}, for {patience_seconds:.0f} s "
            "(checkpoint.patience_seconds); bring the file system back and start again, or choose another name to "
            "start anew"
        ) from error


def _search(
    folder: CheckpointFolder,
    topology: Topology,
    journal: Journal,
    *,
    good: set[Path],
    until_step: int | None,
    enter: Callable[[str], None],
    passes_over_unreadable: bool = False,
) -> tuple[Path, Description] | None:
    """``newest_good`` at once. Raises OSError or FileSystemGone, on all ranks alike, where something cannot be read;
    the next try spares the ``good`` files."""
    unreadable: OSError | None = None
    candidates, remark = from_first_rank(partial(_look, folder), topology)
    if remark:
        journal.tell(Event("strange checkpoints", step_of(candidates[0]) if candidates else 0, remark))
    for checkpoint in candidates:
        if until_step is not None and step_of(checkpoint) > until_step:
            continue
        enter(f"verifying {checkpoint.name}")
        try:
            problems = damages(checkpoint, topology, good=good)
        except OSError as error:
            if not (passes_over_unreadable and _is_of_the_disk(error, checkpoint)):
                raise
            unreadable = error
            journal.tell(_damaged(checkpoint, [f"{error.filename}: {error.strerror}"]))
            continue
        if not problems:
            return checkpoint, from_first_rank(partial(Description.read, checkpoint), topology)
        aside = from_first_rank(partial(folder.set_aside, checkpoint), topology)
        journal.tell(_damaged(checkpoint, problems, aside))
    if unreadable:
        raise unreadable
    if until_step is None:
        from_first_rank(folder.check_unused, topology)
    return None


def damages(checkpoint: Path, topology: Topology, *, good: set[Path] | None = None) -> list[str]:
    """What is wrong with a checkpoint's files, one sentence each. Collective: the ranks share the files out.

    ``good`` are the files of this rank's share that are known to be good, as in ``verify``.

    Raises OSError naming file, rank and host, on all ranks alike, when one of them cannot read a file.
    """
    found: list[str] | OSError
    try:
        if topology.rank and not (checkpoint / CHECKSUMS).exists():
            # The first rank has seen it: this machine does not have the file system.
            raise OSError(errno.ENODEV, "is not there", str(checkpoint))
        found = verify(checkpoint, slice(topology.rank, None, topology.world_size), good=good)
    except OSError as error:
        where = f"on rank {topology.rank} ({socket.gethostname()})"
        found = OSError(error.errno, f"{error.strerror} {where}", error.filename)
    told = shown_by_all(found, topology)
    for one in told:
        if isinstance(one, OSError):
            raise one
    return list(dict.fromkeys(problem for one in told if isinstance(one, list) for problem in one))


def _look(folder: CheckpointFolder) -> tuple[list[Path], str | None]:
    if (folder.path.parent / "config.yaml").exists() and not folder.path.is_dir():
        raise OSError(errno.ENODEV, "has gone although the run has trained", str(folder.path))
    return folder.candidates(), folder.remark()


def _is_of_the_disk(error: OSError, checkpoint: Path) -> bool:
    """Whether the error is of one file's contents, where the checkpoint itself and its list of files can be read."""
    file = Path(error.filename or "")
    return error.errno in _BAD_MEDIUM and file.parent == checkpoint and file.name != CHECKSUMS


def _damaged(checkpoint: Path, problems: list[str], aside: Path | None = None) -> Event:
    more = f" (and {len(problems) - 1} more files)" if len(problems) > 1 else ""
    done = f"it is {aside.name} now" if aside else f"{checkpoint.name} is passed over"
    message = f"{problems[0]}{more}; {done}, and the checkpoint before it is taken"
    return Event("damaged checkpoint", step_of(checkpoint), message, {"problems": problems})
