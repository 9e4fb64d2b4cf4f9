"""The live state of a run, and checkpoints: fp32 master weights and optimizer moments by name and whole shape."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from glm130b.checkpoint.description import Description
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.planner import Slice, SliceSavePlanner
from glm130b.checkpoint.slices import optimizer_slices
from glm130b.checkpoint.snapshot import HostCopy
from glm130b.checkpoint.storage import load_slices, save_slices
from glm130b.config.patience import is_gone, patiently
from glm130b.model.stage import Stage
from glm130b.parallel.topology import Topology
from glm130b.parallel.zero import ZeroEngine
from glm130b.training.journal import Event, Journal
from glm130b.training.progress import Progress

_PATIENT = timedelta(days=1)
"""Of the writers' group: who waits there for a slow disk is no danger, and the heartbeat finds dead processes."""


class CheckpointStore:
    """Every method but ``live`` and ``copy`` is collective over the job."""

    def __init__(
        self,
        folder: CheckpointFolder,
        *,
        stage: Stage,
        engine: ZeroEngine,
        topology: Topology,
        journal: Journal,
        patience_seconds: float,
    ) -> None:
        """Collective, because the writers get a process group of their own: they never meet training's messages.

        ``patience_seconds`` is how long a load waits for a file system that is gone.
        """
        self._folder = folder
        self._stage = stage
        self._engine = engine
        self._topology = topology
        self._journal = journal
        self._patience_seconds = patience_seconds
        self.renew_writers()

    def renew_writers(self) -> None:
        """A new group and new memory for saving; who still waits in the old group keeps that."""
        self._copy = HostCopy()
        self._group = dist.new_group(backend="gloo", timeout=_PATIENT)

    def live(self) -> list[Slice]:
        """What this rank saves, as it is: it changes with the next step."""
        return [piece for piece in self._slices() if piece.is_owner]

    def copy(self) -> list[Slice]:
        """What this rank saves, as it is now, in host memory: it holds until the next copy."""
        return self._copy.take(self.live())

    def write(
        self, slices: list[Slice], *, step: int, description: str, advance: Callable[[float], None] = lambda share: None
    ) -> None:
        """Write ``live`` or ``copy`` as the checkpoint of a step; until the last rename the one before stays latest.

        ``description`` is the first rank's ``run.json``; ``advance`` is told what ``save_slices`` tells it.
        Any thread may call this, one at a time.

        Raises SaveFailed on all ranks alike.
        """
        save_slices(
            SliceSavePlanner(slices),
            self._folder,
            step=step,
            description=description,
            group=self._group,
            advance=advance,
        )

    def retain(
        self, *, keep_last: int | None, keep_every_steps: int | None, advance: Callable[[], None] = lambda: None
    ) -> None:
        """Delete old checkpoints as ``CheckpointFolder.retain``, on the first rank; the others return at once."""
        if self._topology.rank == 0:
            self._folder.retain(keep_last=keep_last, keep_every_steps=keep_every_steps, advance=advance)

    def restore(self, checkpoint: Path, description: Description) -> Progress:
        """Load weights, optimizer state and counters, whatever layout they were saved from; where the run then stands.

        A checkpoint of weights alone (``optimizer_state`` false in its run.json) leaves the moments at zero. Raises
        UserError, before anything is loaded, when the checkpoint does not have the shapes of this run.
        """
        self._load(checkpoint, step=description.progress.step, moments=description.optimizer_state)
        self._engine.restore_counters(description.counters)
        return description.progress

    def load_weights(self, checkpoint: Path) -> None:
        """Load the master weights alone, with moments of zero, from a run with whatever layout and optimizer.

        The engine must be a new one: its counters stay. Raises UserError as ``restore`` does.
        """
        self._load(checkpoint, step=0, moments=False)

    def _load(self, checkpoint: Path, *, step: int, moments: bool) -> None:
        slices = self._slices()
        if not moments:
            for moment in (piece for piece in slices if not piece.is_weight):
                moment.view.zero_()
            slices = [piece for piece in slices if piece.is_weight]
        patiently(
            lambda: load_slices(slices, checkpoint, self._group),
            seconds=self._patience_seconds,
            may_pass=is_gone,
            tell=lambda message: self._journal.tell(Event("file system gone", step, message)),
        )
        self._engine.publish_master_weights()

    def _slices(self) -> list[Slice]:
        return optimizer_slices(self._stage, self._engine, self._topology)
