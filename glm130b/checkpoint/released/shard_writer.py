"""One file of the released layout, written in any order: first the archive with holes for the data, then the data.

``torch.save`` of fake tensors leaves holes; a fake load tells where they are. The holes are filled through memory maps
that last as long as one write, so that only the rows at hand are in memory.
"""

import errno
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from glm130b.checkpoint.released.shard_reader import open_shard

_BLOCK_BYTES = 1 << 22


class ShardWriter:
    """A ``mp_rank_XX_model_states.pt`` whose tensors are filled piece by piece."""

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
        """Makes the file, all zeros, in its full length. Raises OSError when there is no room for it."""
        self._path = path
        # Fake tensors have a shape and no memory.
        with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
            module = {key: torch.empty(shape, dtype=dtype) for key, shape in shapes.items()}
            try:
                torch.save({"module": module}, path)
            except RuntimeError as error:  # torch tells so of a full disk
                raise OSError(errno.ENOSPC, "torch.save could not finish it", str(path)) from error
        self._tensors = open_shard(path).tensors
        with path.open("r+b") as file:
            os.posix_fallocate(
                file.fileno(), 0, path.stat().st_size
            )  # a full disk is an error here, not a signal later

    def write(self, key: str, offset: tuple[int, ...], values: Tensor) -> None:
        """Fill the rectangle at ``offset`` of one tensor with ``values``, which have the file's number format."""
        stored = self._tensors[key]
        end = stored.first_byte + stored.storage_bytes
        target = torch.from_file(str(self._path), shared=True, size=end, dtype=torch.uint8)[stored.first_byte :]
        target = target.view(stored.dtype).view(stored.shape)
        for dim, (start, length) in enumerate(zip(offset, values.shape, strict=True)):
            target = target.narrow(dim, start, length)
        target.copy_(values)

    def close(self) -> None:
        """Give every tensor's record the checksum that ``torch.save`` could not know, and sync the file."""
        with zipfile.ZipFile(self._path) as archive:
            records, directory = archive.infolist(), archive.start_dir
        tensors = iter(sorted(self._tensors.values(), key=lambda stored: stored.first_byte))
        with self._path.open("r+b") as file:
            for record in records:
                if "/data/" in record.filename:
                    stored = next(tensors)
                    checksum = self._checksum(stored.first_byte, stored.storage_bytes).to_bytes(4, "little")
                    # It stands twice: behind the record, after a signature of four bytes, and in the directory.
                    for place in (stored.first_byte + stored.storage_bytes + 4, directory + 16):
                        file.seek(place)
                        file.write(checksum)
                directory += 46 + len(record.filename.encode()) + len(record.extra) + len(record.comment)
            os.fsync(file.fileno())

    def _checksum(self, begin: int, length: int) -> int:
        checksum = 0
        with self._path.open("rb") as file:
            file.seek(begin)
            while length > 0:
                block = file.read(min(_BLOCK_BYTES, length))
                checksum = zlib.crc32(block, checksum)
                length -= len(block)
        return checksum
