"""Texts out of records, and out of whole files where one after the other will do."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glm130b.data.reading.pieces import Reading, cut
from glm130b.data.reading.records import read_records
from glm130b.data.reading.rejection import Damaged, Rejection

TEXT_FIELDS = ("text",)
INSTRUCTION_FIELDS = ("inputs", "targets")
MOST_PROBLEMS = 20


def texts_of(record: Mapping[str, Any], layouts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The values of the first of ``layouts`` whose fields the record has. Raises Rejection."""
    fields = next((fields for fields in layouts if all(field in record for field in fields)), None)
    if fields is None:
        wanted = " or ".join(" and ".join(fields) for fields in layouts)
        raise Rejection("missing field", f"has no {wanted}; write an object with {wanted}")
    for field in fields:
        if not isinstance(record[field], str):
            raise Rejection("wrong type", f"{field} is not a string; write text there")
    return tuple(record[field] for field in fields)


def utf8(text: str, *, longest_bytes: int) -> bytes:
    """The bytes of a document's text. Raises Rejection for a text that is empty, too long or not made of characters."""
    if not text.strip():
        raise Rejection("empty document", "has a text with nothing in it; write something or delete it")
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        reason = "holds half of a surrogate pair, which is no character; write whole characters"
        raise Rejection("half a surrogate pair", reason) from None
    if len(encoded) > longest_bytes:
        raise Rejection("too long", f"has a text of {len(encoded)} bytes, and {longest_bytes} are allowed; cut it")
    return encoded


def read_documents(
    files: Sequence[Path],
    *,
    layouts: Sequence[tuple[str, ...]],
    problems: list[str],
    reading: Reading = Reading(),  # noqa: B008 (it is frozen)
) -> Iterator[tuple[str, ...]]:
    """The documents of the files in order: the values of the first of ``layouts`` whose fields a record has.

    What is wrong goes into ``problems``, one sentence a document; reading ends at the twentieth.
    """
    for file in files:
        try:
            pieces = list(cut(file, reading=reading, piece_bytes=max(1, file.stat().st_size)))
            for piece in pieces:
                for record in read_records(piece, reading):
                    try:
                        if isinstance(record.value, Rejection):
                            raise record.value
                        texts = texts_of(record.value, layouts)
                        for text in texts:
                            utf8(text, longest_bytes=reading.longest_bytes)
                        yield texts
                    except Rejection as rejection:
                        problems.append(f"{file}, line {record.line}: {rejection}")
                    if len(problems) == MOST_PROBLEMS:
                        mend = f"mend these {MOST_PROBLEMS} first"
                        problems.append(f"no line after {file}, line {record.line} was read; {mend}")
                        return
        except OSError as error:
            problems.append(f"{file}: cannot be read ({error.strerror}); name a file with documents")
        except Damaged as error:
            problems.append(f"{file}: {error}")
