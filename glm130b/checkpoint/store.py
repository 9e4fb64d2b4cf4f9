"""Save and restore a run: fp32 master weights and optimizer moments by name and whole shape, counters and config."""

from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from glm130b.checkpoint.description import Description, plain
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.planner import SliceLoadPlanner, SliceSavePlanner, check_slices
from glm130b.checkpoint.slices import optimizer_slices
from glm130b.config.sections import RunConfig
from glm130b.data.mixing.era import Era
from glm130b.model.stage import Stage
from glm130b.parallel.topology import Topology
from glm130b.parallel.zero import ZeroEngine
from glm130b.training.progress import Progress


class CheckpointStore:
    """Knows the live run and its folder. Every method is collective over the job."""

    def __init__(
        self,
        config: RunConfig,
        folder: CheckpointFolder,
        *,
        tokenizer: str,
        stage: Stage,
        engine: ZeroEngine,
        topology: Topology,
    ) -> None:
        """``tokenizer`` is the fingerprint of the one in use."""
        self._config = config
        self._folder = folder
        self._tokenizer = tokenizer
        self._stage = stage
        self._engine = engine
        self._topology = topology

    def save(self, progress: Progress, eras: Sequence[Era] = ()) -> None:
        """Write a checkpoint; until the last rename the one before stays the latest. ``eras`` is how the data was
        mixed."""
        if self._topology.rank == 0:
            self._folder.begin(progress.step)
        dist.barrier()
        writer = dcp.FileSystemWriter(self._folder.writing(progress.step), sync_files=True)
        slices = optimizer_slices(self._stage, self._engine, self._topology)
        dcp.save({}, storage_writer=writer, planner=SliceSavePlanner(slices))
        if self._topology.rank == 0:
            description = Description(
                progress, self._engine.counters(), plain(self._config), self._tokenizer, tuple(eras)
            )
            self._folder.commit(progress.step, description.to_json())
        dist.barrier()

    def restore(self, checkpoint: Path, description: Description) -> Progress:
        """Load weights, optimizer state and counters, whatever layout they were saved from; where the run then stands.

        A checkpoint of weights alone (``optimizer_state`` false in its run.json) leaves the moments at zero.
        Raises UserError when this run is not one that continues the saved one, before anything is loaded.
        """
        description.check_continues(self._config, self._tokenizer)
        slices = optimizer_slices(self._stage, self._engine, self._topology)
        if not description.optimizer_state:
            for moment in (piece for piece in slices if not piece.is_weight):
                moment.view.zero_()
            slices = [piece for piece in slices if piece.is_weight]
        reader = dcp.FileSystemReader(checkpoint)
        check_slices(slices, reader.read_metadata())
        dcp.load({}, storage_reader=reader, planner=SliceLoadPlanner(slices))
        self._engine.restore_counters(description.counters)
        self._engine.publish_master_weights()
        return description.progress
