"""Records out of a piece of a file, with every bad one named."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from glm130b.data.reading.formats import Format
from glm130b.data.reading.json_array import read_array
from glm130b.data.reading.lines import Line, read_lines
from glm130b.data.reading.parquet import read_rows
from glm130b.data.reading.pieces import Piece, Reading
from glm130b.data.reading.rejection import Damaged, Rejection
from glm130b.data.reading.streams import open_stream

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Record:
    """A record, or why it is none."""

    line: int
    """From 1, counted from the first line of the piece (rows in Parquet)."""
    value: dict[str, Any] | Rejection


class PieceReader:
    """Reads one piece of a file; iterate it once."""

    def __init__(self, piece: Piece, reading: Reading, *, columns: Sequence[str] | None = None) -> None:
        """``columns`` are the fields that are asked for, which spares Parquet the others; None: all."""
        self.piece = piece
        self._reading = reading
        self._columns = columns
        self.num_lines = 0
        """Lines (rows) of the piece that have been passed."""
        self.work_done = 0
        """Bytes of the file that have been read, as they lie on disk; about."""

    def __iter__(self) -> Iterator[Record]:
        """The records in order. Raises Damaged, also for a file that cannot be read or has changed since it was cut."""
        try:
            status = self.piece.file.stat()
            if (status.st_size, status.st_mtime_ns) != (self.piece.size, self.piece.modified):
                raise Damaged("has changed since this run began; run the same command again")
            found = Format.of(self.piece.file)
            yield from self._rows() if found and found.kind == "parquet" else self._lines(found)
        except OSError as error:
            raise Damaged(f"cannot be read ({error.strerror or error}); mend that") from None

    def _rows(self) -> Iterator[Record]:
        groups = range(self.piece.start, self.piece.end or 0)
        for number, row in read_rows(self.piece.file, groups=groups, columns=self._columns):
            self.num_lines = number
            yield Record(number, row)
        self.work_done = self.piece.work

    def _lines(self, found: Format | None) -> Iterator[Record]:
        with open_stream(self.piece.file) as stream:
            if found and found.kind == "text":
                documents = {"file": self._whole, "line": self._each_line, "paragraph": self._paragraphs}
                records = documents[self._reading.plain_text](stream.bytes)
            elif self.piece.is_array:
                records = self._elements(stream.bytes)
            else:
                records = (
                    Record(line.number, _parsed(line, self._reading.longest_line))
                    for line in self._numbered(stream.bytes, self._reading.longest_line)
                )
            for record in records:
                self.work_done = min(stream.position() - self.piece.start, self.piece.work)
                yield record

    def _elements(self, stream: BinaryIO) -> Iterator[Record]:
        for line, value in read_array(stream, longest=self._reading.longest_line):
            self.num_lines = line
            yield Record(line, value if isinstance(value, dict) else _no_object(value))

    def _numbered(self, stream: BinaryIO, longest: int) -> Iterator[Line]:
        for line in read_lines(stream, start=self.piece.start, end=self.piece.end, longest=longest):
            self.num_lines = line.number
            yield line

    def _whole(self, stream: BinaryIO) -> Iterator[Record]:
        content = stream.read(self._reading.longest_bytes + 1)
        self.num_lines = 1
        yield Record(1, self._plain(None if len(content) > self._reading.longest_bytes else content))

    def _each_line(self, stream: BinaryIO) -> Iterator[Record]:
        """Empty lines are none."""
        for line in self._numbered(stream, self._reading.longest_bytes):
            if line.content is None or line.content.strip():
                content = line.content and line.content.rstrip(b"\r\n")
                yield Record(line.number, self._plain(content))

    def _paragraphs(self, stream: BinaryIO) -> Iterator[Record]:
        """A paragraph belongs to the piece in which the empty line before it begins, or the file does."""
        start, end = self.piece.start, self.piece.end
        paragraph = _Paragraph(self._reading.longest_bytes) if not start else None
        for line in read_lines(stream, start=start, longest=self._reading.longest_bytes):
            is_inside = end is None or line.offset < end
            self.num_lines += is_inside
            if line.content is not None and not line.content.strip():
                if paragraph and paragraph.line:
                    yield Record(paragraph.line, self._plain(paragraph.content()))
                paragraph = _Paragraph(self._reading.longest_bytes)
                if not is_inside:
                    return
            elif paragraph:
                paragraph.add(line)
            elif not is_inside:
                return
        if paragraph and paragraph.line:
            yield Record(paragraph.line, self._plain(paragraph.content()))

    def _plain(self, content: bytes | None) -> dict[str, Any] | Rejection:
        if content is None:
            return _too_long(self._reading.longest_bytes)
        try:
            return {self._reading.text_field: content.removeprefix(_BYTE_ORDER_MARK).decode()}
        except UnicodeDecodeError as error:
            return _not_utf8(error)


class _Paragraph:
    """Lines that stand together, no more of them than are allowed."""

    def __init__(self, longest: int) -> None:
        self._longest, self._parts, self._size = longest, list[bytes](), 0
        self.line = 0
        """Number of its first line; 0 while it has none."""

    def add(self, line: Line) -> None:
        self.line = self.line or line.number
        self._size += self._longest + 1 if line.content is None else len(line.content)
        if line.content is not None and self._size <= self._longest:
            self._parts.append(line.content)

    def content(self) -> bytes | None:
        return b"".join(self._parts).rstrip(b"\r\n") if self._size <= self._longest else None


def read_records(piece: Piece, reading: Reading, *, columns: Sequence[str] | None = None) -> Iterator[Record]:
    """As PieceReader, where only the records matter."""
    yield from PieceReader(piece, reading, columns=columns)


def _parsed(line: Line, longest: int) -> dict[str, Any] | Rejection:
    if line.content is None:
        return _too_long(longest)
    content = line.content if line.offset else line.content.removeprefix(_BYTE_ORDER_MARK)
    try:
        text = content.decode().strip()
    except UnicodeDecodeError as error:
        return _not_utf8(error)
    if not text:
        return Rejection("empty line", "is empty; delete the line")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return Rejection("broken JSON", f"is not JSON (column {error.colno}: {error.msg}); write one object on a line")
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        return Rejection("broken JSON", f"is JSON that cannot be read ({error}); write one object on a line")
    if not isinstance(value, dict):
        return _no_object(value)
    return value


def _no_object(value: Any) -> Rejection:
    return Rejection("no object", f"is a JSON {type(value).__name__}; write an object with the fields of a document")


def _too_long(longest: int) -> Rejection:
    return Rejection("too long", f"is longer than {longest} bytes; cut it, or allow more")


def _not_utf8(error: UnicodeDecodeError) -> Rejection:
    return Rejection("invalid UTF-8", f"byte {error.start + 1} is not UTF-8; save the file as UTF-8")
