"""The composition root: builds every part of a run and connects them. The only file that knows everyone."""

from datetime import timedelta
from pathlib import Path

from glm130b.announcement import announcement
from glm130b.checkpoint.description import Description
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.hook import SaveCheckpoints
from glm130b.checkpoint.store import CheckpointStore
from glm130b.config.load import dump_config
from glm130b.config.sections import RunConfig
from glm130b.data.dataset import GLMDataset
from glm130b.data.loader import Loader
from glm130b.data.mixing.era import continued
from glm130b.environment import Launch
from glm130b.parallel.agreement import from_first_rank
from glm130b.parallel.device import open_device
from glm130b.parallel.pipeline import Pipeline
from glm130b.parallel.placement import build_stage
from glm130b.parallel.topology import Topology, connect, disconnect
from glm130b.parallel.zero import ZeroEngine
from glm130b.training.evaluation import Evaluation
from glm130b.training.hooks import Hook, RecordSteps
from glm130b.training.loop import train
from glm130b.training.metrics import Recorder, Sink
from glm130b.training.progress import Progress
from glm130b.training.schedules import Schedules
from glm130b.training.sinks import Console, JsonLines
from glm130b.training.stepper import Stepper
from glm130b.training.tokens_seen import TokensSeen


def pretrain(config: RunConfig, launch: Launch) -> None:
    """Train one run to its end, from its newest checkpoint if it has one. Every process of the job calls this."""
    folder = Path(config.folder) / config.name
    checkpoints = CheckpointFolder(folder / "checkpoints")
    train_rows, held_out_rows = GLMDataset.open(config, split="train"), GLMDataset.open(config, split="validation")

    topology = connect(
        config.parallel,
        device=open_device(launch.local_rank),
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=timedelta(minutes=30),
    )
    saved = from_first_rank(lambda: _newest(checkpoints), topology)
    stage = build_stage(config, topology, initialize=saved is None)
    engine = ZeroEngine(config, stage, topology)
    pipeline = Pipeline(stage, engine, topology, sequence_length=config.data.sequence_length)
    tokenizer = train_rows.sources.tokenizer_fingerprint
    store = CheckpointStore(config, checkpoints, tokenizer=tokenizer, stage=stage, engine=engine, topology=topology)
    progress = store.restore(*saved) if saved else Progress()

    schedules = Schedules(config)
    eras = continued(saved[1].eras if saved else (), config, samples=progress.samples)
    train_rows = train_rows.mixed_as(eras)
    loader = _loader(train_rows, schedules, topology)
    recorder = Recorder(_sinks(config, folder, progress) if topology.rank == 0 else [])
    stepper = Stepper(
        config,
        loader=loader,
        pipeline=pipeline,
        engine=engine,
        schedules=schedules,
        topology=topology,
    )
    hooks: list[Hook] = [
        RecordSteps(recorder, TokensSeen(train_rows.mixture, schedules)),
        Evaluation(config, rows=held_out_rows, pipeline=pipeline, topology=topology, recorder=recorder),
        SaveCheckpoints(store, eras, every_steps=config.checkpoint.every_steps, train_samples=config.train_samples),
    ]
    if topology.rank == 0:
        told = announcement(
            config,
            topology=topology,
            stage=stage,
            saved=saved,
            folder=folder,
            sources=train_rows.sources,
            eras=eras,
        )
        print(told, flush=True)
    try:
        train(stepper, progress, train_samples=config.train_samples, hooks=hooks)
    finally:
        loader.close()
        recorder.close()
    disconnect()


def _loader(rows: GLMDataset, schedules: Schedules, topology: Topology) -> Loader:
    """The micro-batches of this process's place on the data axis."""
    return Loader(
        rows,
        schedules.config,
        steps_from=schedules.steps_from,
        data_rank=topology.data.rank,
        data_size=topology.data.size,
        pin_memory=topology.device.type == "cuda",
    )


def _newest(checkpoints: CheckpointFolder) -> tuple[Path, Description] | None:
    newest = checkpoints.latest()
    return (newest, Description.read(newest)) if newest else None


def _sinks(config: RunConfig, folder: Path, progress: Progress) -> list[Sink]:
    """The first rank's sinks, and the resolved config beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    sinks: list[Sink] = [Console(), JsonLines(folder / "metrics.jsonl", resume_step=progress.step)]
    if config.logging.wandb != "disabled":
        from glm130b.training.wandb_sink import WeightsAndBiases  # takes a second to import, on one rank only

        sinks.append(WeightsAndBiases(config, folder))
    return sinks
