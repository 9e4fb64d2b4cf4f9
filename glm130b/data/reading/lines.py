"""Lines of a byte stream in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_SKIP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its end, or the fact that it is too long."""

    number: int
    """From 1, counted from the first line that begins in the range."""
    offset: int
    """Byte of the stream at which it begins."""
    content: bytes | None
    """None: more bytes than the limit."""


def read_lines(stream: BinaryIO, *, start: int = 0, end: int | None = None, longest: int) -> Iterator[Line]:
    """The lines that begin in bytes ``start .. end`` (to the end of the stream without ``end``), the last one whole.

    So ranges that lie side by side share all lines among them, wherever they were cut. No more than ``longest`` bytes
    are held, and no more of an endless line is read than lies in the range.
    """
    position = start
    if start:
        stream.seek(start - 1)  # a line begins at start if the byte before it ends one
        position += _skip_line(stream, None if end is None else end - start) - 1
    number = 0
    while end is None or position < end:
        content: bytes | None = stream.readline(longest + 1)
        if not content:
            return
        number, offset = number + 1, position
        position += len(content)
        if len(content) > longest and not content.endswith(b"\n"):
            content = None
            position += _skip_line(stream, None if end is None else end - position)
        yield Line(number, offset, content)


def _skip_line(stream: BinaryIO, most: int | None) -> int:
    """Read to the end of the line, or until more than ``most`` bytes are behind; how many they were."""
    skipped = 0
    while most is None or skipped <= most:
        part = stream.readline(_SKIP_BYTES)
        skipped += len(part)
        if not part or part.endswith(b"\n"):
            break
    return skipped
