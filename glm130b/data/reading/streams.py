"""A file's bytes, whatever it was compressed with; the one door to zstandard."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from glm130b.data.reading.formats import Format
from glm130b.data.reading.rejection import Damaged

_COMPRESSED_BYTES = 1 << 10


class Stream:
    """Bytes of a file, decompressed as they are read; memory does not depend on the file's size."""

    def __init__(self, raw: BinaryIO, compression: str | None) -> None:
        self._raw = raw
        if compression == "gzip":
            self.bytes: BinaryIO = cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 18))
        elif compression == "zstd":
            self.bytes = cast(BinaryIO, io.BufferedReader(_ZstdFrames(raw), 1 << 18))
        else:
            self.bytes = raw

    def position(self) -> int:
        """Bytes of the file, as it lies on disk, that have been read."""
        return self._raw.tell()


class _ZstdFrames(io.RawIOBase):
    """The contents of frames that stand one after the other.

    The library's own reader takes a file that ends inside a frame for whole.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._pending = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # all that BufferedReader gives
        while not self._pending:
            # 4 bytes may stand for 128 KiB, so little is decompressed at a time.
            compressed = self._raw.read(_COMPRESSED_BYTES)
            if not compressed:
                if self._frame:
                    raise EOFError("it ends inside a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._pending = memoryview(self._frame.decompress(compressed))
            if self._frame.eof:
                self._raw.seek(-len(self._frame.unused_data), io.SEEK_CUR)  # of the next frame
                self._frame = None
        size = min(len(buffer), len(self._pending))
        buffer[:size], self._pending = self._pending[:size], self._pending[size:]
        return size


@contextmanager
def open_stream(file: Path) -> Iterator[Stream]:
    """A file to read. Raises Damaged, also for what shows only while reading, and OSError."""
    found = Format.of(file)
    try:
        with file.open("rb") as raw:
            yield Stream(raw, found.compression if found else None)
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        reason = " ".join(str(error).split())
        raise Damaged(f"is damaged or incomplete ({reason}); copy or compress it again") from None
