"""A trained model from a run's folder, whole, in this process."""

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch

from glm130b.checkpoint.description import Description
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.planner import MASTER, Slice
from glm130b.checkpoint.storage import load_slices
from glm130b.config.derived import num_parameters
from glm130b.config.errors import UserError
from glm130b.config.sections import KernelsConfig, ParallelConfig, PrecisionConfig, RunConfig
from glm130b.config.validation import validated
from glm130b.data.tokenizers.tokenizer import Tokenizer
from glm130b.model.glm import GLM
from glm130b.model.sharding import parameter_shards
from glm130b.model.stage import Stage
from glm130b.model.transformer_config import DTYPES
from glm130b.parallel.device import open_device
from glm130b.parallel.placement import build_stage
from glm130b.parallel.topology import Topology, connect
from glm130b.preflight.machine import free_host_bytes


@dataclass(frozen=True)
class TrainedModel:
    """Weights in evaluation mode, and what turns text into their tokens."""

    model: GLM
    tokenizer: Tokenizer
    device: torch.device


def load_run(run: Path) -> TrainedModel:
    """The newest checkpoint of a run folder such as ``runs/tiny``, whatever layout it was saved from. Raises
    UserError."""
    checkpoint = CheckpointFolder(run / "checkpoints").latest()
    if checkpoint is None:
        raise UserError(f"{run}: has no checkpoint; give the folder of a run that has trained, such as runs/tiny")
    description = Description.read(checkpoint)
    config = validated(description.config)
    tokenizer = Tokenizer.load(config.data.tokenizer)
    description.check_continues(config, tokenizer.fingerprint)
    device = open_device(local_rank=0)
    # The weights are kept in fp32; a GPU computes in the run's own format.
    precision = PrecisionConfig(dtype=config.precision.dtype if device.type == "cuda" else "fp32")
    _check_room(run, config, precision, device)
    stage = _whole_stage(config, precision, device)
    _load_weights(stage, checkpoint)
    (model,) = stage.eval()
    return TrainedModel(model, tokenizer, device)


def _check_room(run: Path, config: RunConfig, precision: PrecisionConfig, device: torch.device) -> None:
    """For the model on its device and, while it is filled, for its fp32 weights in host memory."""
    size, free_host = num_parameters(config.model), free_host_bytes()
    host, on_device = 4 * size, DTYPES[precision.dtype].itemsize * size
    if device.type == "cuda":
        rooms = [("GPU memory", on_device, torch.cuda.mem_get_info(device)[0]), ("host memory", host, free_host)]
    else:
        rooms = [("host memory", host + on_device, free_host)]
    if problems := [
        f"{run}: its {size / 1e9:.3g} billion weights need {needed / 2**30:.1f} GiB of {kind} in this one process, "
        f"{free / 2**30:.1f} are free; take a larger machine, or `glm130b convert export` for other tools"
        for kind, needed, free in rooms
        if free is not None and needed > free
    ]:
        raise UserError(problems)


def _whole_stage(config: RunConfig, precision: PrecisionConfig, device: torch.device) -> Stage:
    single = ParallelConfig(tensor=1, pipeline=1, data=1)
    # The kernels that the run asked for are those of its machine, not of this one.
    config = config.model_copy(update={"parallel": single, "precision": precision, "kernels": KernelsConfig()})
    stage = build_stage(config, _lone_topology(single, device), initialize=False)
    return stage.to(dtype=DTYPES[precision.dtype])


def _lone_topology(parallel: ParallelConfig, device: torch.device) -> Topology:
    """A grid of one process, which lasts as long as the process; it meets itself in a file, so it needs no port."""
    with tempfile.TemporaryDirectory() as folder:
        return connect(
            parallel,
            device=device,
            init_method=(Path(folder) / "meeting-point").as_uri(),
            rank=0,
            world_size=1,
            timeout=timedelta(minutes=1),
        )


@torch.no_grad()
def _load_weights(stage: Stage, checkpoint: Path) -> None:
    masters = {
        shard.name: Slice.whole(f"{MASTER}/{shard.name}", torch.empty(shard.whole_shape))
        for shard in parameter_shards(stage)
    }
    load_slices(list(masters.values()), checkpoint)
    for shard in parameter_shards(stage):
        shard.parameter.copy_(masters[shard.name].view)
