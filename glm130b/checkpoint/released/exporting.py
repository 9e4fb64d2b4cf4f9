"""From any checkpoint of ours to the released layout, one stored rectangle at a time."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem

from glm130b.checkpoint.description import Description
from glm130b.checkpoint.layout import Layout
from glm130b.checkpoint.planner import MASTER, Slice, check_slices
from glm130b.checkpoint.released.layout import (
    ReleasedTensor,
    check_cut,
    check_model,
    released_tensors,
    rotary_keys,
    rotary_width,
    shard_file,
)
from glm130b.checkpoint.released.room import check_room
from glm130b.checkpoint.released.shard_writer import ShardWriter
from glm130b.checkpoint.storage import load_planned
from glm130b.config.errors import UserError
from glm130b.config.model import ModelConfig
from glm130b.config.validation import validated


def export_released(checkpoint: Path, output: Path, *, num_shards: int, dtype: torch.dtype) -> None:
    """Write a checkpoint's master weights, rounded to ``dtype``, as ``num_shards`` shards.

    ``output`` appears when it is whole. Raises UserError when the model has no place in the released layout, does not
    divide over the shards, or has a weight too large for ``dtype``, and when ``output`` is there already or lacks room.
    """
    if output.exists():
        raise UserError(f"{output}: is there already; name a new folder")
    description = Description.read(checkpoint)
    model = validated(description.config).model
    check_model(model)
    check_cut(model, num_shards)
    wanted = _wanted(model)
    check_slices(wanted, Layout.read(checkpoint).metadata())

    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shard_weights = sum(math.prod(tensor.shard_shape(num_shards)) for tensor in released_tensors(model))
    check_room(output, num_shards * shard_weights * dtype.itemsize)
    try:
        iteration = partial / str(description.progress.step)
        iteration.mkdir(parents=True)
        shards = _empty_shards(iteration, model, num_shards, dtype)
        planner = _ExportPlanner(released_tensors(model), shards, dtype)
        try:
            load_planned(planner, checkpoint, wanted)
        except OSError as error:
            raise UserError(f"{checkpoint}: cannot be read to its end ({error}); export another step") from error
        if planner.overflows:
            raise UserError(_overflow(checkpoint, planner.overflows, dtype))
        for shard in shards:
            shard.close()
        (partial / "latest").write_text(iteration.name, encoding="utf-8")
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


class _ExportPlanner(DefaultLoadPlanner):
    """Reads every stored rectangle of the master weights once and hands it to the shards that hold a part of it."""

    def __init__(self, tensors: Sequence[ReleasedTensor], shards: Sequence[ShardWriter], dtype: torch.dtype) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._tensors = {f"{MASTER}/{tensor.name}": tensor for tensor in tensors}
        self._shards = shards
        self._dtype = dtype
        self.overflows: list[str] = []
        """Tensors, by our names, with values that the number format does not hold."""

    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None
        items = []
        for key in self._tensors:
            stored = self.metadata.state_dict_metadata[key]
            assert isinstance(stored, TensorStorageMetadata)  # check_slices has looked
            for index, chunk in enumerate(stored.chunks):
                whole = torch.Size([0] * len(chunk.sizes))
                place = MetadataIndex(key, chunk.offsets, index)
                items.append(ReadItem(LoadItemType.TENSOR, place, whole, place, whole, chunk.sizes))
        return LoadPlan(items)

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        """Memory in the number format of the shards, so that reading rounds."""
        return torch.empty(read_item.lengths, dtype=self._dtype)

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        released = self._tensors[read_item.dest_index.fqn]
        smallest_and_largest = torch.stack(tensor.aminmax())  # nan when one is in it; takes no memory, as isfinite does
        if not smallest_and_largest.isfinite().all() and released.name not in self.overflows:
            self.overflows.append(released.name)
        assert read_item.dest_index.offset is not None
        offset, dim = tuple(read_item.dest_index.offset), released.cut or 0
        for rank, shard in enumerate(self._shards):
            for span in released.spans(rank, len(self._shards)):
                low = max(offset[dim], span.whole)
                high = min(offset[dim] + tensor.shape[dim], span.whole + span.length)
                if low < high:
                    local = (*offset[:dim], span.local + low - span.whole, *offset[dim + 1 :])
                    shard.write(released.key, local, tensor.narrow(dim, low - offset[dim], high - low))


def _empty_shards(folder: Path, model: ModelConfig, num_shards: int, dtype: torch.dtype) -> list[ShardWriter]:
    """The shards' files with everything but the weights: the tables of rotary frequencies are in them."""
    width = rotary_width(model)
    # In fp32, then rounded, as the original did.
    frequencies = (1.0 / model.rotary_base ** (torch.arange(0, width, 2, dtype=torch.float32) / width)).to(dtype)
    shapes = {tensor.key: tensor.shard_shape(num_shards) for tensor in released_tensors(model)}
    shapes |= {key: tuple(frequencies.shape) for key in rotary_keys(model)}
    shards = [ShardWriter(folder / shard_file(rank), shapes, dtype) for rank in range(num_shards)]
    for shard in shards:
        for key in rotary_keys(model):
            shard.write(key, (0,), frequencies)
    return shards


def _wanted(model: ModelConfig) -> list[Slice]:
    """The whole master weights, as what a checkpoint must hold."""
    return [
        Slice(f"{MASTER}/{tensor.name}", tensor.shape, (0,) * len(tensor.shape), torch.empty(0), is_owner=False)
        for tensor in released_tensors(model)
    ]


def _overflow(checkpoint: Path, names: Sequence[str], dtype: torch.dtype) -> list[str]:
    limit = torch.finfo(dtype).max
    return [
        f"{checkpoint}: {name} has values that {dtype} does not hold (over {limit:g}, or not finite); export another "
        "step, or with --dtype bf16 or fp32"
        for name in names
    ]
