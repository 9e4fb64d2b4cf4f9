"""Files that are whole on disk before anybody relies on them."""

import hashlib
import os
from pathlib import Path

from glm130b.config.section import Section

_BLOCK_BYTES = 1 << 20


class FileSummary(Section):
    """What a written file must look like when it is read."""

    bytes: int
    sha256: str


class DurableFile:
    """A new file that is written from its beginning to its end, and hashed on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("wb", buffering=_BLOCK_BYTES)
        self._hash = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes, or the memory of a contiguous array (``array.data``)."""
        self._stream.write(data)
        self._hash.update(data)
        self._bytes += memoryview(data).nbytes

    def sync(self) -> None:
        """Return when what has been written is on the disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> FileSummary:
        """Return when the contents are on the disk."""
        self.sync()
        self._stream.close()
        return FileSummary(bytes=self._bytes, sha256=self._hash.hexdigest())

    def abandon(self) -> None:
        """Close without waiting for the disk; the file stays as it is."""
        self._stream.close()


def replace_durably(path: Path, text: str) -> None:
    """Give a file new contents, so that a reader or a power cut finds the old ones or the new ones."""
    beside = path.with_name(f".{path.name}.writing")
    file = DurableFile(beside)
    file.write(text.encode())
    file.close()
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new names and renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
