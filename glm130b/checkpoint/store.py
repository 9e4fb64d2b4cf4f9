"""Save and restore a run: fp32 master weights and optimizer moments by name and whole shape, counters, and the
resolved config."""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.planner import SliceLoadPlanner, SliceSavePlanner, check_slices
from glm130b.checkpoint.slices import optimizer_slices
from glm130b.config.sections import RunConfig
from glm130b.model.glm import GLM
from glm130b.parallel.topology import Topology
from glm130b.parallel.zero import ZeroEngine
from glm130b.training.progress import Progress


class CheckpointStore:
    """Knows the live run and its folder. Every method is collective over the job."""

    def __init__(
        self, config: RunConfig, folder: CheckpointFolder, *, model: GLM, engine: ZeroEngine, topology: Topology
    ) -> None:
        self._config = config
        self._folder = folder
        self._model = model
        self._engine = engine
        self._topology = topology

    def save(self, progress: Progress) -> None:
        """Write a checkpoint; until the last rename the one before stays the latest."""
        if self._topology.rank == 0:
            self._folder.begin(progress.step)
        dist.barrier()
        writing = self._folder.writing(progress.step)
        slices = optimizer_slices(self._model, self._engine, self._topology)
        dcp.save({}, storage_writer=dcp.FileSystemWriter(writing, sync_files=True), planner=SliceSavePlanner(slices))
        if self._topology.rank == 0:
            (writing / "run.json").write_text(json.dumps(self._description(progress), indent=1))
            self._folder.commit(progress.step)
        dist.barrier()

    def restore(self, checkpoint: Path) -> Progress:
        """Load weights, optimizer state and counters, whatever layout they were saved from; where the run then
        stands."""
        slices = optimizer_slices(self._model, self._engine, self._topology)
        reader = dcp.FileSystemReader(checkpoint)
        check_slices(slices, reader.read_metadata())
        dcp.load({}, storage_reader=reader, planner=SliceLoadPlanner(slices))
        description = json.loads((checkpoint / "run.json").read_text())
        self._engine.restore_counters(description["counters"])
        self._engine.publish_master_weights()
        return Progress(**description["progress"])

    def _description(self, progress: Progress) -> dict[str, Any]:
        return {
            "progress": asdict(progress),
            "counters": self._engine.counters(),
            "config": json.loads(self._config.model_dump_json()),
            "versions": {package: version(package) for package in ("glm130b", "torch", "megatron-core", "deepspeed")},
        }
