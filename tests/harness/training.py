"""The product's own parts put together on synthetic rows, to run inside the processes of a test."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor

from glm130b.checkpoint.description import Description, plain
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.store import CheckpointStore
from glm130b.config.sections import RunConfig
from glm130b.data.batches import Rows, micro_batches
from glm130b.data.loader import Loader
from glm130b.environment import Launch
from glm130b.model.activation_scale import ActivationScale
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.model.sharding import parameter_shards
from glm130b.model.stage import Stage
from glm130b.parallel.device import open_device
from glm130b.parallel.pipeline import Pipeline
from glm130b.parallel.placement import build_stage
from glm130b.parallel.topology import Topology, connect, disconnect
from glm130b.parallel.zero import ZeroEngine
from glm130b.training.journal import Journal
from glm130b.training.meter import Meter
from glm130b.training.objective_loss import forward_step
from glm130b.training.progress import Progress
from glm130b.training.schedules import Schedules
from glm130b.training.stability.guard import Guard
from glm130b.training.stability.watch import Watch
from glm130b.training.stepper import Stepper
from tests.harness.records import without_machine
from tests.harness.stage import initial_stage
from tests.harness.synthetic import SyntheticRows

StepNumbers = dict[str, float]


Gradients = dict[str, list[tuple[int, int, Tensor]]]
"""By name, the pieces of one rank: (dim, start in the whole tensor, values)."""


@dataclass
class LiveRun:
    """One process's share of a run."""

    config: RunConfig
    topology: Topology
    stage: Stage
    engine: ZeroEngine
    pipeline: Pipeline
    stepper: Stepper

    def take_steps(self, count: int, progress: Progress = Progress()) -> tuple[Progress, list[StepNumbers]]:  # noqa: B008
        numbers = []
        for _ in range(count):
            progress, record = self.stepper.step(progress)
            numbers.append({"applied": progress.applied_updates, **without_machine(record.values)})
        return progress, numbers

    def accumulate_gradients(self, shrink: ShrinkFactors = ShrinkFactors()) -> None:  # noqa: B008
        """Forward and backward over the first step's rows, without the optimizer."""
        batch, data = self.config.batch, self.topology.data
        rows: Any = SyntheticRows()
        self.pipeline.train(
            forward_step(self.topology.device, shrink),
            micro_batches(
                rows,
                first_sample=0,
                batch_size=batch.global_size,
                micro_size=batch.micro_size,
                data_rank=data.rank,
                data_size=data.size,
            ),
            num_micro_batches=batch.global_size // (batch.micro_size * data.size),
            micro_size=batch.micro_size,
        )

    def gradient_pieces(self) -> Gradients:
        return {
            shard.name: [
                (
                    shard.dim,
                    piece.whole_start,
                    self.engine.gradient_of(shard.parameter).narrow(shard.dim, piece.local_start, piece.length).clone(),
                )
                for piece in shard.pieces
            ]
            for shard in parameter_shards(self.stage)
        }

    def store(self, folder: Path, tokenizer: str = "fingerprint") -> "LiveStore":
        CheckpointFolder(folder).create()
        return LiveStore(self, folder, tokenizer)


class LiveStore(CheckpointStore):
    """A store that saves in place, for a run that tells nothing of its data."""

    def __init__(self, run: LiveRun, folder: Path, tokenizer: str) -> None:
        super().__init__(
            CheckpointFolder(folder),
            stage=run.stage,
            engine=run.engine,
            topology=run.topology,
            journal=Journal(None),
            patience_seconds=0.0,
        )
        self._run = run
        self._tokenizer = tokenizer

    def describe(self, progress: Progress) -> Description:
        return Description(progress, self._run.engine.counters(), plain(self._run.config), self._tokenizer)

    def save(self, progress: Progress) -> None:
        self.write(self.live(), step=progress.step, description=self.describe(progress).to_json())

    def continued_from(self, checkpoint: Path) -> Progress:
        """Restore if this run is the one that was saved, as ``pretrain`` does."""
        description = Description.read(checkpoint)
        description.check_continues(self._run.config, self._tokenizer)
        return self.restore(checkpoint, description)


def live_run(config: RunConfig, launch: Launch, rows: Rows = SyntheticRows()) -> LiveRun:  # noqa: B008
    """Join a job and build this process's share, as ``pretrain`` does."""
    topology = connect(
        config.parallel,
        device=open_device(local_rank=0),
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=timedelta(minutes=2),
    )
    stage = build_stage(config, topology)
    engine = ZeroEngine(config, stage, topology)
    pipeline = Pipeline(stage, engine, topology, sequence_length=config.data.sequence_length)
    schedules = Schedules(config)
    batches = loader(rows, schedules, topology)
    scale = ActivationScale(stage) if config.logging.activations else None
    stepper = Stepper(
        config,
        loader=batches,
        pipeline=pipeline,
        engine=engine,
        schedules=schedules,
        watch=watch(config, schedules),
        topology=topology,
        meter=meter(config, batches, topology, scale),
    )
    return LiveRun(config, topology, stage, engine, pipeline, stepper)


def watch(config: RunConfig, schedules: Schedules) -> Watch:
    """A guard that tells nobody."""
    return Watch(Guard(config.stability, schedules=schedules), Journal(None))


def meter(config: RunConfig, rows: Loader, topology: Topology, scale: ActivationScale | None = None) -> Meter:
    """Of ranks that each run on a machine of their own."""
    hosts = [f"host-{rank}" for rank in range(topology.world_size)]
    return Meter(config, loader=rows, topology=topology, hosts=hosts, activation_scale=scale)


def loader(rows: Rows, schedules: Schedules, topology: Topology) -> Loader:
    """Rows built in this process."""
    return Loader(
        rows,
        schedules.config,
        steps_from=schedules.steps_from,
        data_rank=topology.data.rank,
        data_size=topology.data.size,
        pin_memory=False,
    )


def train_steps(launch: Launch, config: RunConfig, count: int) -> list[StepNumbers]:
    """The numbers of the first ``count`` steps, the same on every rank."""
    run = live_run(config, launch)
    _, numbers = run.take_steps(count)
    disconnect()
    return numbers


def save_then_continue(launch: Launch, config: RunConfig, folder: Path, before: int, after: int) -> list[StepNumbers]:
    """Take ``before`` steps, save, and go on for ``after`` more: the undisturbed run."""
    run = live_run(config, launch)
    progress, _ = run.take_steps(before)
    run.store(folder).save(progress)
    _, numbers = run.take_steps(after, progress)
    disconnect()
    return numbers


def resume(launch: Launch, config: RunConfig, folder: Path, count: int) -> list[StepNumbers]:
    """Load the newest checkpoint and go on: the restarted run."""
    run = live_run(config, launch)
    newest = CheckpointFolder(folder).latest()
    assert newest is not None
    _, numbers = run.take_steps(count, run.store(folder).continued_from(newest))
    disconnect()
    return numbers


def first_gradients(launch: Launch, config: RunConfig, shrink: ShrinkFactors) -> Gradients:
    """Of the first step, on this process."""
    run = live_run(config, launch)
    run.accumulate_gradients(shrink)
    pieces = run.gradient_pieces()
    disconnect()
    return pieces


def initial_weights(launch: Launch, config: RunConfig) -> dict[str, Tensor]:
    """Whole initial weights by name; one process only."""
    with initial_stage(launch, config) as stage:
        return {shard.name: shard.parameter.detach().clone() for shard in parameter_shards(stage)}
