"""Where ``torch.distributed.checkpoint`` writes and reads slices: bare numbers in one file a rank, and JSON.

Its own storage pickles the metadata, and would run whatever a foreign checkpoint asks for.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint import LoadPlan, LoadPlanner, SavePlan, SavePlanner, StorageReader, StorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import ReadItem, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.layout import ELEMENT_BYTES, TENSORS, Chunk, Layout
from glm130b.checkpoint.planner import Slice, SliceLoadPlanner, SliceSavePlanner, check_slices
from glm130b.config.errors import UserError
from glm130b.config.patience import is_gone
from glm130b.durable import DurableFile, FileSummary

_SYNC_BYTES = 1 << 28
"""After so many bytes a rank waits for the disk: one fsync over a whole shard may take longer than a hang."""


class SaveFailed(Exception):
    """A checkpoint could not be written; nothing that was there before has changed."""


def save_slices(
    planner: SliceSavePlanner,
    folder: CheckpointFolder,
    *,
    step: int,
    description: str,
    group: ProcessGroup | None = None,
    advance: Callable[[float], None] = lambda share: None,
) -> None:
    """Write a checkpoint from its beginning to its commit. Collective over ``group``, or of this process alone.

    ``description`` is the first rank's ``run.json``. ``advance`` is told what share of this rank's part is on the disk,
    up to 1, whenever more of it is, and after each file that is deleted. Raises SaveFailed, on all ranks alike, when
    any of them could not write; what was half-written is gone then, and the disk has its room again.
    """
    try:
        writer = CheckpointWriter(folder, step, description, advance)
        dcp.save({}, storage_writer=writer, planner=planner, process_group=group, no_dist=group is None)
    except CheckpointException as error:
        if group is None or group.rank() == 0:  # every rank has stopped writing before any of them is told
            folder.abort(step, partial(advance, 1.0))
        for cause, _ in error.failures.values():
            if isinstance(cause, KeyboardInterrupt):
                raise cause from None
        raise SaveFailed(_told(error, group)) from error


def load_slices(slices: Sequence[Slice], checkpoint: Path, group: ProcessGroup | None = None) -> None:
    """Fill every slice from a checkpoint of any layout. Collective over ``group``, or of this process alone.

    Raises UserError before anything is filled when the checkpoint lacks a tensor or has it in another shape.
    """
    load_planned(SliceLoadPlanner(slices), checkpoint, slices, group)


def load_planned(
    planner: LoadPlanner, checkpoint: Path, wanted: Sequence[Slice], group: ProcessGroup | None = None
) -> None:
    """``load_slices`` with a planner of one's own; ``wanted`` is what the checkpoint must hold.

    Raises UserError when a file is damaged, and OSError when the file system is gone, in the ``group`` on all ranks
    alike.
    """
    try:
        reader = CheckpointReader(checkpoint, wanted)
        dcp.load({}, storage_reader=reader, planner=planner, process_group=group, no_dist=group is None)
    except CheckpointException as error:
        causes = [_cause(cause) for cause, _ in error.failures.values()]
        for cause in sorted(causes, key=is_gone, reverse=True):
            if is_gone(cause) or isinstance(cause, UserError):
                raise cause from error
        raise UserError(
            f"{checkpoint}: cannot be read ({_told(error, group)}); go on from another checkpoint"
        ) from error


class _Written(NamedTuple):
    """Where a rectangle went."""

    file: str
    byte: int
    summary: FileSummary
    """Of the whole file."""


class CheckpointWriter(StorageWriter):
    """Makes the folder on the first rank, then a file on every rank, then on the first rank the commit: the order, and
    that a failure on one rank is the failure of all, are ``dcp.save``'s."""

    def __init__(self, folder: CheckpointFolder, step: int, description: str, advance: Callable[[float], None]) -> None:
        self._folder = folder
        self._step = step
        self._description = description
        self._advance = advance

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A writer writes once."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """There is nothing to set up."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        self._folder.begin(self._step, partial(self._advance, 0.0))
        return [replace(plan, storage_data=f"__{rank}_0.distcp") for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        done: Future[list[WriteResult]] = Future()
        done.set_result(self._write(plan, planner) if plan.items else [])
        self._advance(1.0)
        return done

    def _write(self, plan: SavePlan, planner: SavePlanner) -> list[WriteResult]:
        name: str = plan.storage_data
        file = DurableFile(self._folder.writing(self._step) / name)
        begins, end, synced = [], 0, 0
        total = sum(_num_bytes(item) for item in plan.items)
        try:
            for item in plan.items:
                tensor = planner.resolve_data(item)
                assert isinstance(tensor, Tensor)
                data = _memory(tensor.detach().cpu().contiguous())
                begins.append(end)
                for begin in range(0, data.nbytes, _SYNC_BYTES):
                    piece = data[begin : begin + _SYNC_BYTES]
                    file.write(piece)
                    end += piece.nbytes
                    if end - synced >= _SYNC_BYTES:
                        file.sync()
                        synced = end
                        self._advance(synced / total)
            summary = file.close()
        except BaseException:
            file.abandon()
            raise
        return [
            WriteResult(item.index, _num_bytes(item), _Written(name, byte, summary))
            for item, byte in zip(plan.items, begins, strict=True)
        ]

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        written = {result.index: result.storage_data for rank in results for result in rank}
        summaries = {place.file: place.summary for place in written.values()}
        places = {MetadataIndex(i.fqn, i.offset): (place.file, place.byte) for i, place in written.items()}
        file = DurableFile(self._folder.writing(self._step) / TENSORS)
        try:
            file.write(Layout.of(metadata, places).to_json().encode())
            summaries[TENSORS] = file.close()
        except BaseException:
            file.abandon()
            raise
        self._folder.commit(self._step, self._description, summaries, partial(self._advance, 1.0))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False  # it is never looked for by its path


class CheckpointReader(StorageReader):
    """Reads the rows that are asked for, and no others."""

    def __init__(self, checkpoint: Path, wanted: Sequence[Slice] = ()) -> None:
        """``wanted`` is checked against the checkpoint before anything is read."""
        self._checkpoint = checkpoint
        self._wanted = wanted
        self._chunks: dict[MetadataIndex, Chunk] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A reader reads once."""

    def read_metadata(self) -> Metadata:
        try:
            return Layout.read(self._checkpoint).metadata()
        except (UserError, OSError) as error:
            raise _Unreadable(error) from error

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        check_slices(self._wanted, metadata)
        self._chunks = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        by_file: dict[str, list[tuple[Chunk, ReadItem]]] = {}
        for item in plan.items:
            chunk = self._chunks[item.storage_index]
            by_file.setdefault(chunk.file, []).append((chunk, item))
        for name, items in by_file.items():
            file = self._checkpoint / name
            with file.open("rb") as stream:
                for chunk, item in sorted(items, key=lambda pair: pair[0].byte):
                    offset, lengths = tuple(item.storage_offsets), tuple(item.lengths)
                    row_bytes = ELEMENT_BYTES * math.prod(chunk.sizes[1:])
                    rows = torch.empty(lengths[0], *chunk.sizes[1:], dtype=torch.float32)
                    stream.seek(chunk.byte + offset[0] * row_bytes)
                    if stream.readinto(_memory(rows)) != lengths[0] * row_bytes:
                        raise UserError(f"{file}: is cut off; go on from another checkpoint")
                    for dim in range(1, len(lengths)):
                        rows = rows.narrow(dim, offset[dim], lengths[dim])
                    target = planner.resolve_tensor(item)
                    target.copy_(rows)
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False


class _Unreadable(BaseException):
    """Carries an error past ``dcp.load``, which takes every Exception here for a hint to look for other metadata."""


def _cause(error: BaseException) -> BaseException:
    return error.args[0] if isinstance(error, _Unreadable) else error


def _num_bytes(item: WriteItem) -> int:
    assert item.tensor_data
    return ELEMENT_BYTES * math.prod(item.tensor_data.chunk.sizes)


def _memory(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor."""
    return tensor.numpy().data.cast("B")


def _told(error: CheckpointException, group: ProcessGroup | None) -> str:
    """Whose trouble it was, and what: "rank 3: [Errno 28] No space left on device"."""
    (rank, (failure, _)), *others = error.failures.items()
    cause = _cause(failure)
    what = str(cause) or repr(cause)
    return what if group is None else f"rank {rank}: {what}" + f" (and {len(others)} more ranks)" * bool(others)
