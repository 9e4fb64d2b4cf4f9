"""The composition root: builds every part of a run and connects them. The only file that knows everyone."""

from datetime import timedelta
from pathlib import Path

import torch

from glm130b.checkpoint.description import Description
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.hook import SaveCheckpoints
from glm130b.checkpoint.store import CheckpointStore
from glm130b.config.load import dump_config
from glm130b.config.sections import RunConfig
from glm130b.data.dataset import GLMDataset
from glm130b.environment import Launch
from glm130b.model.glm import GLM
from glm130b.model.initialization import initialize_
from glm130b.model.transformer_config import transformer_config
from glm130b.parallel.agreement import from_first_rank
from glm130b.parallel.device import open_device
from glm130b.parallel.pipeline import Pipeline
from glm130b.parallel.tied_embedding import mark_tied_copy
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


def pretrain(config: RunConfig, launch: Launch) -> None:
    """Train one run to its end, from its newest checkpoint if it has one. Every process of the job calls this."""
    folder = Path(config.folder) / config.name
    checkpoints = CheckpointFolder(folder / "checkpoints")
    train_data, held_out_data = GLMDataset(config, split="train"), GLMDataset(config, split="validation")

    topology = connect(
        config.parallel,
        device=open_device(launch.local_rank),
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=timedelta(minutes=30),
    )
    saved = from_first_rank(lambda: _newest(checkpoints), topology)
    model = build_model(config, topology, initialize=saved is None)
    engine = ZeroEngine(config, model, topology)
    pipeline = Pipeline(model, engine, topology, sequence_length=config.data.sequence_length)
    store = CheckpointStore(
        config,
        checkpoints,
        tokenizer=train_data.tokenizer_fingerprint,
        model=model,
        engine=engine,
        topology=topology,
    )
    progress = store.restore(*saved) if saved else Progress()

    recorder = Recorder(_sinks(config, folder, progress) if topology.rank == 0 else [])
    stepper = Stepper(
        config, dataset=train_data, pipeline=pipeline, engine=engine, schedules=Schedules(config), topology=topology
    )
    hooks: list[Hook] = [
        RecordSteps(recorder),
        Evaluation(config, dataset=held_out_data, pipeline=pipeline, topology=topology, recorder=recorder),
        SaveCheckpoints(store, every_steps=config.checkpoint.every_steps, train_samples=config.train_samples),
    ]
    if topology.rank == 0:
        print(
            _banner(config, topology), _beginning(config, saved, folder), *_warnings(train_data), sep="\n", flush=True
        )
    train(stepper, progress, train_samples=config.train_samples, hooks=hooks)
    recorder.close()
    disconnect()


def build_model(config: RunConfig, topology: Topology, *, initialize: bool = True) -> GLM:
    """This process's stage on its device; its weights are undefined when a checkpoint will fill them."""
    model = GLM(
        config.model,
        transformer_config(config.model, config.parallel, config.precision),
        groups=topology.groups,
        first_stage=topology.is_first_stage,
        last_stage=topology.is_last_stage,
    ).to(topology.device)
    if initialize:
        initialize_(model, config.seed)
    mark_tied_copy(model)
    return model


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


def _banner(config: RunConfig, topology: Topology) -> str:
    return (
        f"{config.name}: {config.precision.dtype} on {topology.world_size} x {topology.device.type}, "
        f"TP {topology.tensor.size} x PP {topology.pipeline.size} x DP {topology.data.size}, "
        f"ZeRO {config.parallel.zero_stage}, torch {torch.__version__}"
    )


def _beginning(config: RunConfig, saved: tuple[Path, Description] | None, folder: Path) -> str:
    """Where the run begins, and what has changed in its config since it was saved there."""
    if saved is None:
        return "starts from its initial weights"
    checkpoint, description = saved
    changes = [f"  {key}: {old!r} -> {new!r}" for key, (old, new) in description.changes(config).items()]
    if description.progress.samples >= config.train_samples:
        return f"{checkpoint}: is complete, nothing is left to train; remove {folder} to start anew"
    return "\n".join([f"continues {checkpoint} at step {description.progress.step}", *changes])


def _warnings(data: GLMDataset) -> list[str]:
    return [
        f"warning: data.instructions.{name}: {count} answers are longer than their slot and are cut; raise "
        "data.sequence_length or lower objective.samples_per_row"
        for name, count in data.num_cut_answers.items()
        if count
    ]
