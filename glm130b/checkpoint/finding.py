"""Which checkpoint a run goes on from: the newest that is what was written, found by all ranks together."""

import errno
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from glm130b.checkpoint.checksums import CHECKSUMS, verify
from glm130b.checkpoint.description import Description
from glm130b.checkpoint.folder import CheckpointFolder, step_of
from glm130b.checkpoint.patience import is_gone, patiently
from glm130b.config.errors import UserError
from glm130b.parallel.agreement import from_first_rank, shown_by_all
from glm130b.parallel.topology import Topology
from glm130b.training.journal import Event, Journal


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

    Collective. A damaged one is told and set aside, and the one before is taken. A file system that is gone is waited
    for. Raises UserError, on all ranks alike, when a run that has had checkpoints has no good one, and when the file
    system stays away: never is a run silently started anew.
    """

    def search() -> tuple[Path, Description] | None:
        candidates, remark = from_first_rank(partial(_look, folder), topology)
        if remark:
            journal.tell(Event("strange checkpoints", step_of(candidates[0]) if candidates else 0, remark))
        for checkpoint in candidates:
            if until_step is not None and step_of(checkpoint) > until_step:
                continue
            enter(f"verifying {checkpoint.name}")
            if problems := damages(checkpoint, topology):
                aside = from_first_rank(partial(folder.set_aside, checkpoint), topology)
                journal.tell(_damaged(step_of(checkpoint), aside, problems))
                continue
            return checkpoint, from_first_rank(partial(Description.read, checkpoint), topology)
        if until_step is None:
            from_first_rank(folder.check_unused, topology)
        return None

    try:
        return patiently(
            search,
            seconds=patience_seconds,
            may_pass=is_gone,
            tell=lambda message: journal.tell(Event("file system gone", 0, message)),
        )
    except OSError as error:
        raise UserError(
            f"{error.filename or folder.path}: {error.strerror}, for {patience_seconds:.0f} s "
            "(checkpoint.patience_seconds); bring the file system back and start again, or choose another name to "
            "start anew"
        ) from error


def damages(checkpoint: Path, topology: Topology) -> list[str]:
    """What is wrong with a checkpoint's files, one sentence each. Collective: the ranks share the files out.

    Raises OSError, on all ranks alike, when the file system is gone.
    """
    found: list[str] | OSError
    try:
        if topology.rank and not (checkpoint / CHECKSUMS).exists():
            # The first rank has seen it: this machine does not have the file system.
            host = socket.gethostname()
            raise OSError(errno.ENODEV, f"rank {topology.rank} ({host}) does not see it", str(checkpoint))
        found = verify(checkpoint, slice(topology.rank, None, topology.world_size))
    except OSError as error:
        found = error
    told = shown_by_all(found, topology)
    for one in told:
        if isinstance(one, OSError):
            raise one
    return list(dict.fromkeys(problem for one in told if isinstance(one, list) for problem in one))


def _look(folder: CheckpointFolder) -> tuple[list[Path], str | None]:
    if (folder.path.parent / "config.yaml").exists() and not folder.path.is_dir():
        raise OSError(errno.ENODEV, "has gone although the run has trained", str(folder.path))
    return folder.candidates(), folder.remark()


def _damaged(step: int, aside: Path, problems: list[str]) -> Event:
    more = f" (and {len(problems) - 1} more files)" if len(problems) > 1 else ""
    message = f"{problems[0]}{more}; it is {aside.name} now, and the checkpoint before it is taken"
    return Event("damaged checkpoint", step, message, {"problems": problems})
