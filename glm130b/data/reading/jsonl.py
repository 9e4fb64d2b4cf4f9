"""Documents from JSON lines, with every bad line named."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

TEXT_FIELDS = ("text",)
INSTRUCTION_FIELDS = ("inputs", "targets")
MOST_PROBLEMS = 20


def read_documents(
    files: Sequence[Path], *, layouts: Sequence[tuple[str, ...]], problems: list[str]
) -> Iterator[tuple[str, ...]]:
    """The documents of the files in order: the values of the first of ``layouts`` whose fields a line has.

    Every line is a JSON object whose fields are non-empty strings. What is wrong goes into ``problems``, one sentence
    a line; reading ends at the twentieth.
    """
    for file in files:
        try:
            with file.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    try:
                        yield _document(line, layouts)
                    except ValueError as error:
                        problems.append(f"{file}, line {number}: {error}")
                    if len(problems) == MOST_PROBLEMS:
                        problems.append(
                            f"no line after {file}, line {number} was read; mend these {MOST_PROBLEMS} first"
                        )
                        return
        except OSError as error:
            problems.append(f"{file}: cannot be read ({error.strerror}); name a JSON lines file")


def _document(line: bytes, layouts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The document on one line. Raises ValueError with what is wrong and how to mend it."""
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None
    if not text:
        raise ValueError("is empty; delete the line")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON (column {error.colno}: {error.msg}); write one JSON object on a line") from None
    wanted = " or ".join(" and ".join(fields) for fields in layouts)
    fields = next(
        (fields for fields in layouts if isinstance(value, dict) and all(field in value for field in fields)), None
    )
    if fields is None:
        raise ValueError(f"has no {wanted}; write an object with {wanted}")
    for field in fields:
        if not isinstance(value[field], str) or not value[field]:
            raise ValueError(f"{field} is not a string with something in it; write text there or delete the line")
        if any("\ud800" <= character <= "\udfff" for character in value[field]):
            raise ValueError(f"{field} holds half of a surrogate pair, which is no character; write whole characters")
    return tuple(value[field] for field in fields)
