"""``torch.distributed.checkpoint`` in terms of slices: which rectangles a rank writes and which it reads."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from glm130b.config.errors import UserError

MASTER = "master"
"""The state that is the fp32 master weights; the others are the optimizer's moments."""


@dataclass(frozen=True)
class Slice:
    """A rectangle of one whole tensor and the live memory that it is saved from and loaded into."""

    key: str
    """``<state>/<parameter>``, for example ``exp_avg/decoder.layers.3.mlp.linear_fc1.bias``."""
    whole_shape: tuple[int, ...]
    offset: tuple[int, ...]
    view: Tensor
    """fp32, of the rectangle's shape; writing to it writes to the optimizer."""
    is_owner: bool
    """Exactly one rank of the job owns each element, and saves it; every holder loads it."""

    @classmethod
    def whole(cls, key: str, tensor: Tensor) -> "Slice":
        """All of a tensor, to be loaded."""
        shape = tuple(tensor.shape)
        return cls(key, shape, (0,) * len(shape), tensor, is_owner=False)

    @property
    def is_weight(self) -> bool:
        """Of the master weights, not of the optimizer's moments."""
        return self.key.startswith(f"{MASTER}/")


class SliceSavePlanner(DefaultSavePlanner):
    """Writes the slices that this rank owns. The default planner merges all ranks' plans and refuses overlaps and, in
    a job of several processes, gaps."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._slices = {_index(piece): piece for piece in slices if piece.is_owner}

    def create_local_plan(self) -> SavePlan:
        self.plan = SavePlan([_write_item(index, piece) for index, piece in self._slices.items()])
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> Tensor | io.BytesIO:
        index = MetadataIndex(write_item.index.fqn, write_item.index.offset)
        return self._slices[index].view.detach().contiguous()


class SliceLoadPlanner(DefaultLoadPlanner):
    """Reads every slice this rank holds, from whatever rectangles the checkpoint was written in, straight into
    place."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._slices = {_index(piece): piece for piece in slices}

    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None
        items: list[ReadItem] = []
        for piece in self._slices.values():
            stored = self.metadata.state_dict_metadata[piece.key]
            assert isinstance(stored, TensorStorageMetadata)  # check_slices has looked
            items += create_read_items_for_chunk_list(piece.key, stored, [_chunk(piece)])
        return LoadPlan(items)

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        view = self._slices[MetadataIndex(read_item.dest_index.fqn, read_item.dest_index.offset)].view
        for dim, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            view = view.narrow(dim, start, length)
        return view

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """Nothing to do: ``resolve_tensor`` hands out the destination itself."""


def check_slices(slices: Iterable[Slice], metadata: Metadata) -> None:
    """Raise a UserError when the checkpoint lacks a tensor or holds it in another shape. Before any is read, so
    nothing is half-loaded."""
    missing, misshapen = [], []
    for key, shape in {piece.key: piece.whole_shape for piece in slices}.items():
        stored = metadata.state_dict_metadata.get(key)
        if not isinstance(stored, TensorStorageMetadata):
            missing.append(key)
        elif tuple(stored.size) != shape:
            misshapen.append(f"{key} has shape {list(stored.size)} and the config asks for {list(shape)}")
    problems = []
    if missing:
        problems.append(
            f"checkpoint: {_first_of(missing)} missing; resume with the model and optimizer sections it was saved with"
        )
    if misshapen:
        problems.append(f"checkpoint: {_first_of(misshapen)}; resume with the model section it was saved with")
    if problems:
        raise UserError(problems)


def _first_of(names: Sequence[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more tensors)" if len(names) > 1 else "")


def _index(piece: Slice) -> MetadataIndex:
    return MetadataIndex(piece.key, torch.Size(piece.offset))


def _chunk(piece: Slice) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(offsets=torch.Size(piece.offset), sizes=piece.view.shape)


def _write_item(index: MetadataIndex, piece: Slice) -> WriteItem:
    return WriteItem(
        index=index,
        type=WriteItemType.SHARD,
        tensor_data=TensorWriteData(
            chunk=_chunk(piece),
            properties=TensorProperties(dtype=piece.view.dtype),
            size=torch.Size(piece.whole_shape),
        ),
    )
