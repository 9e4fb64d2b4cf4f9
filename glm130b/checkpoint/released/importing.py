"""From the released layout to the first checkpoint of a run, a few rows at a time."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import WriteItem

from glm130b.checkpoint.description import Description, plain
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.planner import MASTER, Slice, SliceSavePlanner
from glm130b.checkpoint.released.layout import ReleasedTensor, released_tensors
from glm130b.checkpoint.released.room import check_room
from glm130b.checkpoint.released.source import ReleasedCheckpoint
from glm130b.checkpoint.storage import SaveFailed, save_slices
from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.data.tokenizers.tokenizer import Tokenizer
from glm130b.training.progress import Progress
from glm130b.training.schedules import Schedules

_SLICE_ELEMENTS = 2**26
"""Of a tensor that are read, widened and written at a time: 256 MiB in fp32."""


def import_released(released: Path, config: RunConfig, *, samples: int = 0) -> Path:
    """Write the released weights as the checkpoint that ``config``'s run goes on from; the checkpoint's folder.

    The run stands at ``samples`` consumed samples; it has fp32 master weights and no optimizer state. Raises UserError,
    with nothing written, when the released checkpoint is not whole or not of this model, when the run has a checkpoint
    already, or when its folder has no room.
    """
    checkpoints = Path(config.folder) / config.name / "checkpoints"
    folder = CheckpointFolder(checkpoints)
    if present := folder.latest():
        raise UserError(f"name: {config.name} has a checkpoint, {present}; choose another name for the imported run")
    if not 0 <= samples < config.train_samples:
        raise UserError(
            f"--samples: {samples} is not inside the run; write 0 up to train_samples - 1, {config.train_samples - 1}"
        )
    tokenizer = Tokenizer.load(config.data.tokenizer)
    num_weights = sum(math.prod(tensor.shape) for tensor in released_tensors(config.model))
    check_room(checkpoints, num_weights * torch.float32.itemsize)
    source = ReleasedCheckpoint.open(released)
    source.check(config.model)
    progress = Progress(step=Schedules(config).steps_until(samples), samples=samples)
    description = Description(
        progress,
        counters={"optimizer_step": 0.0, "loss_scaler": {}},
        config=plain(config),
        tokenizer=tokenizer.fingerprint,
        optimizer_state=False,
    )
    folder.create()
    try:
        save_slices(_ImportPlanner(source, config), folder, step=progress.step, description=description.to_json())
    except SaveFailed as error:
        raise UserError(
            f"{checkpoints}: cannot be written from {released} ({error}); mend that, import again"
        ) from error
    return folder.at(progress.step)


class _Rows(NamedTuple):
    tensor: ReleasedTensor
    start: int
    stop: int


class _ImportPlanner(SliceSavePlanner):
    """Reads a slice from the released shards when its turn to be written has come."""

    def __init__(self, source: ReleasedCheckpoint, config: RunConfig) -> None:
        self._source = source
        self._rows = {}
        slices = []
        for tensor in released_tensors(config.model):
            key = f"{MASTER}/{tensor.name}"
            for start, stop in _row_ranges(tensor.shape):
                offset = (start,) + (0,) * (len(tensor.shape) - 1)
                shape = (stop - start, *tensor.shape[1:])
                slices.append(Slice(key, tensor.shape, offset, torch.empty(shape, device="meta"), is_owner=True))
                self._rows[MetadataIndex(key, torch.Size(offset))] = _Rows(tensor, start, stop)
        super().__init__(slices)

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        return self._source.rows(*self._rows[MetadataIndex(write_item.index.fqn, write_item.index.offset)])


def _row_ranges(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The rows of a tensor in runs of at most ``_SLICE_ELEMENTS`` elements."""
    step = max(1, _SLICE_ELEMENTS // math.prod(shape[1:]))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])
