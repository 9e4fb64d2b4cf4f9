"""Elements of a JSON array that is a whole file, as Alpaca's is, in bounded memory."""

import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from glm130b.data.reading.rejection import Damaged

_CHARACTERS = 1 << 16
_SPACES = " \t\r\n"


def opens_array(stream: BinaryIO) -> bool:
    """Whether the first thing in the stream is a bracket."""
    return stream.read(_CHARACTERS).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def read_array(stream: BinaryIO, *, longest: int) -> Iterator[tuple[int, Any]]:
    """(line at which it begins, element) of each element of at most ``longest`` characters.

    Raises Damaged where the array is broken: what comes after that cannot be told apart.
    """
    text = _Text(stream)
    text.expect("[")
    is_first = True
    while text.peek() != "]":
        if not is_first:
            text.expect(",")
            text.peek()
        is_first = False
        yield text.line, text.element(longest)
    text.expect("]")
    if text.peek():
        raise text.damage("has something after its array")


class _Text:
    """The text of a stream, taken from its front."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = io.TextIOWrapper(stream, "utf-8-sig")
        self._buffer, self._position = "", 0
        self.line = 1
        """From 1, where the next thing begins."""

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._position < len(self._buffer) and self._buffer[self._position] in _SPACES:
                self._take(1)
            if self._position < len(self._buffer) or not self._more(_CHARACTERS):
                return self._buffer[self._position : self._position + 1]

    def expect(self, character: str) -> None:
        """Take this character."""
        if (found := self.peek()) != character:
            raise self.damage(f"has {found!r} where {character!r} is due" if found else f"ends without {character!r}")
        self._take(1)

    def element(self, longest: int) -> Any:
        """Take the next value."""
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._buffer, self._position)
                if end < len(self._buffer):  # a number might go on
                    break
                problem = "ends inside its array"
            except json.JSONDecodeError as error:
                problem = error.msg
            except RecursionError:
                raise self.damage("is nested too deep") from None
            known = len(self._buffer) - self._position
            if known > longest or not self._more(max(known, _CHARACTERS)):
                raise self.damage(f"has an element that is broken ({problem}) or longer than {longest} characters")
        self._take(end - self._position)
        return value

    def damage(self, problem: str) -> Damaged:
        return Damaged(f"is a JSON array that cannot be read: line {self.line} {problem}; mend it there")

    def _take(self, length: int) -> None:
        self.line += self._buffer.count("\n", self._position, self._position + length)
        self._position += length

    def _more(self, length: int) -> bool:
        try:
            text = self._stream.read(length)
        except UnicodeDecodeError:
            raise self.damage("is followed by bytes that are not UTF-8") from None
        self._buffer, self._position = self._buffer[self._position :] + text, 0
        return bool(text)
