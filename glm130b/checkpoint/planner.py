"""``torch.distributed.checkpoint`` in terms of slices: which rectangles a rank writes and which it reads."""

import io
from collections.abc import Sequence

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

from glm130b.checkpoint.slices import Slice
from glm130b.config.errors import UserError


class SliceSavePlanner(DefaultSavePlanner):
    """Writes the slices that this rank owns. The default planner merges all ranks' plans and checks that they tile every tensor."""

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
    """Reads every slice this rank holds, from whatever rectangles the checkpoint was written in, straight into place."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._slices = {_index(piece): piece for piece in slices}

    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None
        check_slices(self._slices.values(), self.metadata)
        items: list[ReadItem] = []
        for piece in self._slices.values():
            items += create_read_items_for_chunk_list(
                piece.key, self.metadata.state_dict_metadata[piece.key], [_chunk(piece)]
            )
        return LoadPlan(items)

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        view = self._slices[MetadataIndex(read_item.dest_index.fqn, read_item.dest_index.offset)].view
        for dim, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            view = view.narrow(dim, start, length)
        return view

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """Nothing to do: ``resolve_tensor`` hands out the destination itself."""


def check_slices(slices: Sequence[Slice] | object, metadata: Metadata) -> None:
    """Raise a UserError that names every tensor the checkpoint lacks or holds in another shape."""
    problems = {}
    for piece in slices:  # type: ignore[attr-defined]
        stored = metadata.state_dict_metadata.get(piece.key)
        if not isinstance(stored, TensorStorageMetadata):
            problems[piece.key] = f"checkpoint: {piece.key} is missing; was it saved with another model or optimizer?"
        elif tuple(stored.size) != piece.whole_shape:
            problems[piece.key] = (
                f"checkpoint: {piece.key} has shape {list(stored.size)}, the config asks for {list(piece.whole_shape)}; "
                "use the model section that the checkpoint was saved with"
            )
    if problems:
        raise UserError(list(problems.values()))


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
