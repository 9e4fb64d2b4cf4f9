"""Parts of files that can be read side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glm130b.data.reading.formats import Format
from glm130b.data.reading.json_array import opens_array
from glm130b.data.reading.parquet import group_bytes
from glm130b.data.reading.streams import open_stream


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files are read."""

    text_field: str = "text"
    """Name that the records of plain text give their text."""
    plain_text: Literal["file", "line", "paragraph"] = "file"
    """What one document of a plain text file is; paragraphs stand between empty lines."""
    longest_bytes: int = 4 << 20
    """UTF-8 bytes of the longest document."""

    @property
    def longest_line(self) -> int:
        """Bytes of the longest line of JSON, which may hold more than its document and spell that out in escapes."""
        return 4 * self.longest_bytes


@dataclass(frozen=True)
class Piece:
    """Bytes ``start .. end`` of a plain file, row groups ``start .. end`` of a Parquet file, or a whole file."""

    file: Path
    size: int
    """Bytes of the whole file, as they were when it was cut."""
    modified: int
    """Nanoseconds since 1970, likewise."""
    start: int = 0
    end: int | None = None
    """None: up to the end of the file."""
    work: int = 0
    """Bytes of the file that this is about."""
    is_array: bool = False
    """The whole file is one JSON array."""

    def __str__(self) -> str:
        unit = "row groups" if self.file.suffix.lower() == ".parquet" else "bytes"
        return (
            str(self.file) if not self.start and self.end is None else f"{self.file}, {unit} {self.start}..{self.end}"
        )


def cut(file: Path, *, reading: Reading, piece_bytes: int) -> Iterator[Piece]:
    """Pieces of a file of a known format, about ``piece_bytes`` each where the format allows it.

    A plain file is cut at round numbers without a look inside; ``read_lines`` gives every line to one piece.
    Raises Damaged and OSError.
    """
    status = file.stat()
    size, modified = status.st_size, status.st_mtime_ns
    found = Format.of(file)
    if found and found.kind == "parquet":
        start = gathered = 0
        sizes = group_bytes(file)
        for group, num_bytes in enumerate(sizes, start=1):
            gathered += num_bytes
            if gathered >= piece_bytes or group == len(sizes):
                work = size * (group - start) // len(sizes)
                yield Piece(file, size, modified, start, group, work)
                start, gathered = group, 0
    elif ".json" in map(str.lower, file.suffixes) and _holds_array(file):
        yield Piece(file, size, modified, work=size, is_array=True)
    elif found and not found.compression and (found.kind == "lines" or reading.plain_text != "file"):
        for start in range(0, size, piece_bytes):
            end = min(start + piece_bytes, size)
            yield Piece(file, size, modified, start, end, end - start)
    else:
        yield Piece(file, size, modified, work=size)


def _holds_array(file: Path) -> bool:
    with open_stream(file) as stream:
        return opens_array(stream.bytes)
