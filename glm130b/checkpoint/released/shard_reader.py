"""One file of the released layout, read without unpickling anything but tensors and without holding more than the rows
asked for.

``torch.save`` writes a zip archive: a pickle that says how each tensor lies in which storage, and every storage's
bytes, uncompressed, as a record. Loaded with fake tensors it gives shapes, strides and places in the file, and no data.
"""

import zipfile
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from glm130b.config.errors import UserError

_ZIP_BEGINNING = b"PK\x03\x04"


@dataclass(frozen=True)
class StoredTensor:
    """How a tensor lies in its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    """In elements; a shard saved as a view of a larger tensor is not contiguous."""
    first_byte: int
    """Where its first element lies in the file."""
    storage_byte: int
    """Where its storage begins in the file."""
    storage_bytes: int
    """Length that the storage should have."""


class ReleasedShard:
    """The tensors of one ``mp_rank_XX_model_states.pt``."""

    def __init__(self, path: Path, tensors: dict[str, StoredTensor]) -> None:
        self.path = path
        self.tensors = tensors

    def rows(self, key: str, start: int, stop: int) -> Tensor:
        """The rows ``start .. stop - 1`` of a tensor, in its own number format, in new memory."""
        stored = self.tensors[key]
        shape = (stop - start, *stored.shape[1:])
        size = stored.dtype.itemsize
        num_elements = 1 + sum((n - 1) * stride for n, stride in zip(shape, stored.stride, strict=True))
        raw = np.fromfile(
            self.path,
            dtype=np.uint8,
            count=num_elements * size,
            offset=stored.first_byte + start * stored.stride[0] * size,
        )
        return torch.from_numpy(raw).view(stored.dtype).as_strided(shape, stored.stride)

    def damages(self) -> list[str]:
        """Reads the whole file and compares every record with its length and checksum; each problem names a tensor."""
        by_place = sorted((tensor.storage_byte, key) for key, tensor in self.tensors.items())
        damaged = []
        with zipfile.ZipFile(self.path) as archive:
            for record in archive.infolist():
                place = bisect_left(by_place, (record.header_offset, ""))
                key = by_place[place][1] if "/data/" in record.filename and place < len(by_place) else record.filename
                if key in self.tensors and record.file_size < self.tensors[key].storage_bytes:
                    damaged.append(f"{self.path}: {key} is cut off; copy the file again")
                elif not _has_its_checksum(archive, record):
                    damaged.append(f"{self.path}: {key} has not the checksum it was saved with; copy the file again")
        return damaged


def open_shard(path: Path) -> ReleasedShard:
    """Read what a file holds, not the data. Raises UserError when it is not ``{"module": {key: tensor}}`` of
    ``torch.save``, or damaged outside the data."""
    with path.open("rb") as stream:
        is_archive = stream.read(len(_ZIP_BEGINNING)) == _ZIP_BEGINNING
    if not is_archive:
        raise UserError(f"{path}: is not in the zip format of torch.save (PyTorch 1.6 and later); save it anew with it")
    try:
        return ReleasedShard(path, {key: _stored(tensor) for key, tensor in _module(path).items()})
    except UserError:
        raise
    except Exception as error:  # zipfile, pickle and torch raise errors of a dozen types on damaged bytes
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: cannot be loaded as tensors alone ({reason}); copy the file again") from error


def _module(path: Path) -> dict[str, Tensor]:
    """The file's fake tensors by name; raises anything."""
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: is cut off, its end is missing; copy the file again")
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise UserError(f"{path}: is compressed, which torch.save never does; give the file that it wrote")
        for record in records:
            if "/data/" not in record.filename:
                archive.read(record)  # compares the checksum: a damaged name or shape must not pass for another model
    with FakeTensorMode():
        content = torch.load(path, weights_only=True, map_location="cpu")
    module = content.get("module") if isinstance(content, dict) else None
    if not isinstance(module, dict):
        raise UserError(f'{path}: is not {{"module": {{name: tensor}}}}; name a checkpoint in the released layout')
    strangers = [str(key) for key, value in module.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if strangers:
        raise UserError(f"{path}: {', '.join(strangers)} in it is no tensor; save it without")
    return module


def _stored(tensor: Tensor) -> StoredTensor:
    storage = tensor.untyped_storage()
    begin = storage._checkpoint_offset  # set by torch.load for fake tensors, as its notes on serialization tell
    assert begin is not None
    return StoredTensor(
        dtype=tensor.dtype,
        shape=tuple(tensor.shape),
        stride=tensor.stride(),
        first_byte=begin + int(tensor.storage_offset()) * tensor.dtype.itemsize,
        storage_byte=begin,
        storage_bytes=storage.nbytes(),
    )


def _has_its_checksum(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(record) as stream:
            while stream.read(1 << 20):
                pass
    except Exception:  # the record's headers are damaged too: zipfile raises errors of many types
        return False
    return True
