"""Builds every part of a run and connects them. The only file that knows everyone.

A `Job` is what a process builds once. A `Leg` is what trains: from where the run stands until its end, or until the run
changes, because the stability guard takes it back or changes a schedule. The next leg is built as a restarted process
would build it.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from glm130b.checkpoint.description import Description, Resume, plain
from glm130b.checkpoint.finding import newest_good
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.saver import Saver
from glm130b.checkpoint.store import CheckpointStore
from glm130b.config.derived import grid_size
from glm130b.config.sections import RunConfig
from glm130b.data.dataset import GLMDataset
from glm130b.data.loader import Loader
from glm130b.data.mixing.era import continued
from glm130b.installed import versions
from glm130b.model.activation_scale import ActivationScale
from glm130b.model.stage import Stage
from glm130b.parallel.agreement import shown_by_all
from glm130b.parallel.device import open_device
from glm130b.parallel.heartbeat import Heartbeat
from glm130b.parallel.meeting import Meeting
from glm130b.parallel.pipeline import Pipeline
from glm130b.parallel.placement import build_stage
from glm130b.parallel.topology import Topology, connect
from glm130b.parallel.zero import ZeroEngine
from glm130b.preflight.rank_checks import compare_ranks
from glm130b.preflight.rank_facts import local_facts
from glm130b.training.evaluation import Evaluation
from glm130b.training.hooks import Hook, RecordSteps
from glm130b.training.interruption import Interruption
from glm130b.training.invariants import DataAgreement, Invariants
from glm130b.training.journal import Event, Journal
from glm130b.training.loop import train
from glm130b.training.meter import Meter
from glm130b.training.pace import Pace
from glm130b.training.progress import Progress
from glm130b.training.roll_call import RollCall
from glm130b.training.schedules import Schedules
from glm130b.training.sinks.opening import open_recorder
from glm130b.training.sinks.recorder import Recorder
from glm130b.training.stability.guard import Guard
from glm130b.training.stability.memory import Memory
from glm130b.training.stability.verdict import Rewind
from glm130b.training.stability.watch import Watch
from glm130b.training.stepper import Stepper
from glm130b.training.tokens_seen import TokensSeen


@dataclass(frozen=True)
class Standing:
    """Where a run stands between two steps, beside its tensors."""

    progress: Progress
    guard: Memory
    resumes: tuple[Resume, ...]


@dataclass(frozen=True)
class Job:
    """One process's parts that last as long as it does."""

    config: RunConfig
    folder: Path
    checkpoints: CheckpointFolder
    train_rows: GLMDataset
    """In the run's eras, so that a rewind finds its past."""
    held_out_rows: GLMDataset
    heartbeat: Heartbeat
    recorder: Recorder
    journal: Journal
    topology: Topology
    found: tuple[Path, Description] | None
    """The checkpoint that the process goes on from, if the run has one."""
    stage: Stage
    engine: ZeroEngine
    pipeline: Pipeline
    store: CheckpointStore
    hosts: tuple[str, ...]
    """Of the machine of every rank."""
    pace: Pace
    activation_scale: ActivationScale | None
    """It listens to the stage from the start, if the config wants it."""

    @classmethod
    @contextmanager
    def assembled(
        cls, config: RunConfig, folder: Path, *, meeting: Meeting, heartbeat: Heartbeat, timeout: timedelta
    ) -> Iterator["Job"]:
        """Collective. Nothing is loaded yet; without a checkpoint the weights are the initial ones.

        At the end, that of a start that fails too, the job's records are complete.
        """
        patience = config.checkpoint.patience_seconds
        heartbeat.enter("opening the data")
        train_rows, held_out_rows = GLMDataset.open(config, split="train"), GLMDataset.open(config, split="validation")
        checkpoints = CheckpointFolder(folder / "checkpoints")
        heartbeat.enter("joining the job")
        topology = _joined(config, meeting, timeout)
        hosts = shown_by_all(socket.gethostname(), topology)
        with _recorder(config, folder, topology, hosts) as recorder:
            journal = Journal(recorder.tell)
            heartbeat.enter("comparing the ranks")
            differences = compare_ranks(local_facts(config, topology.device), config, topology)
            found = None
            try:
                found = newest_good(checkpoints, topology, journal, patience_seconds=patience, enter=heartbeat.enter)
            finally:  # they may be why there is none
                for difference in differences:
                    journal.tell(Event("rank differs", found[1].progress.step if found else 0, difference))
            if found:
                heartbeat.enter("opening the data")
                eras = continued(found[1].eras, config, samples=found[1].progress.samples)
                train_rows = GLMDataset.open(config, split="train", eras=eras)  # with the sources of the run's past
                sources = train_rows.sources
                found[1].check_continues(config, sources.tokenizer_fingerprint, sources.fingerprints)
            heartbeat.enter("building the model")
            stage = build_stage(config, topology, initialize=found is None)
            engine = ZeroEngine(config, stage, topology)
            yield cls(
                config=config,
                folder=folder,
                checkpoints=checkpoints,
                train_rows=train_rows,
                held_out_rows=held_out_rows,
                heartbeat=heartbeat,
                recorder=recorder,
                journal=journal,
                topology=topology,
                found=found,
                stage=stage,
                engine=engine,
                pipeline=Pipeline(stage, engine, topology, sequence_length=config.data.sequence_length),
                store=CheckpointStore(
                    checkpoints,
                    stage=stage,
                    engine=engine,
                    topology=topology,
                    journal=journal,
                    patience_seconds=patience,
                ),
                hosts=hosts,
                pace=Pace(config.supervision, hosts=hosts, device=topology.device, journal=journal),
                activation_scale=ActivationScale(stage) if config.logging.activations else None,
            )

    def describe(self, standing: Standing) -> Description:
        """What a checkpoint of this moment says."""
        return Description(
            progress=standing.progress,
            counters=self.engine.counters(),
            config=plain(self.config),
            tokenizer=self.train_rows.sources.tokenizer_fingerprint,
            corpora=(self.found[1].corpora if self.found else {}) | self.train_rows.sources.fingerprints,
            eras=self.train_rows.mixture.eras,
            guard=standing.guard,
            resumes=standing.resumes,
        )


class Leg:
    """The parts that train from one standing on."""

    def __init__(
        self, job: Job, standing: Standing, interruption: Interruption, *, retry_step: int | None = None
    ) -> None:
        """``retry_step`` is when the leg before would have tried a save again that had failed."""
        self._job = job
        self._begin = standing
        self._interruption = interruption
        schedules = Schedules(job.config, standing.guard.interventions)
        self._loader = _loader(job, schedules)
        job.recorder.begin(standing.progress.step)
        self.watch = Watch(Guard(job.config.stability, standing.guard, schedules=schedules), job.journal)
        self.saver = Saver(
            job.store,
            lambda progress: job.describe(self.standing(progress)),
            config=job.config.checkpoint,
            train_samples=job.config.train_samples,
            stall_seconds=job.config.supervision.stall_seconds,
            topology=job.topology,
            journal=job.journal,
            retry_step=retry_step,
            holds_back=lambda: self.rewind is not None,
            expect=interruption.expect_save,
            enter=job.heartbeat.enter,
        )
        self._stepper = Stepper(
            job.config,
            loader=self._loader,
            pipeline=job.pipeline,
            engine=job.engine,
            schedules=schedules,
            watch=self.watch,
            topology=job.topology,
            meter=Meter(
                job.config,
                loader=self._loader,
                topology=job.topology,
                hosts=job.hosts,
                activation_scale=job.activation_scale,
            ),
            enter_phase=job.heartbeat.enter,
        )
        self._hooks = self._hooked(schedules)

    def standing(self, progress: Progress) -> Standing:
        """Where the run stands at ``progress``, in this leg."""
        return Standing(progress, self.watch.guard.memory, self._begin.resumes)

    def train(self) -> Standing:
        """Until the end of the run, a request to end, or a verdict that changes the run. Collective."""
        progress = train(
            self._stepper,
            self._begin.progress,
            train_samples=self._job.config.train_samples,
            hooks=self._hooks,
            is_cut_short=lambda: self._interruption.reason is not None or self.watch.wants_a_change(),
        )
        return self.standing(progress)

    @property
    def rewind(self) -> Rewind | None:
        """How far the last verdict takes the run back, if it does."""
        return self.watch.verdict.rewind if self.watch.verdict else None

    def __enter__(self) -> "Leg":
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the loader's workers."""
        self._loader.close()

    def _hooked(self, schedules: Schedules) -> list[Hook]:
        """What happens around the steps: what is saved has been recorded, evaluated and checked."""
        job, config = self._job, self._job.config
        hooks: list[Hook] = [
            RecordSteps(job.recorder, TokensSeen(job.train_rows.mixture, schedules)),
            Evaluation(
                config,
                rows=job.held_out_rows,
                pipeline=job.pipeline,
                topology=job.topology,
                recorder=job.recorder,
                enter_phase=job.heartbeat.enter,
            ),
        ]
        if every_steps := config.supervision.invariants_every_steps:
            hooks.append(Invariants(job.stage, job.engine, job.topology, every_steps=every_steps, journal=job.journal))
        agreement = DataAgreement(self._loader, job.topology, job.journal)
        return [*hooks, RollCall([self._interruption, job.pace, self.saver, agreement], job.topology), self.saver]


def _joined(config: RunConfig, meeting: Meeting, timeout: timedelta) -> Topology:
    """The grid, once every process of it has come."""
    return connect(
        config.parallel,
        device=open_device(meeting.launch.local_rank),
        store=meeting.store("groups", timeout),
        rank=meeting.launch.rank,
        world_size=grid_size(config, meeting.launch.world_size),
        timeout=timeout,
    )


def _recorder(config: RunConfig, folder: Path, topology: Topology, hosts: Sequence[str]) -> Recorder:
    """The first rank's has the sinks."""
    if topology.rank:
        return Recorder()
    return open_recorder(config, folder, facts=_facts(topology, hosts))


def _loader(job: Job, schedules: Schedules) -> Loader:
    """The micro-batches of this process's place on the data axis."""
    return Loader(
        job.train_rows,
        job.config,
        steps_from=schedules.steps_from,
        data_rank=job.topology.data.rank,
        data_size=job.topology.data.size,
        pin_memory=job.topology.device.type == "cuda",
    )


def _facts(topology: Topology, hosts: Sequence[str]) -> dict[str, Any]:
    """What a run's page says beside its config."""
    return {
        "installed": versions(),
        "world_size": topology.world_size,
        "tensor": topology.tensor.size,
        "pipeline": topology.pipeline.size,
        "data": topology.data.size,
        "hosts": sorted(set(hosts)),
    }
