"""What a file's name says about it, and which files a user's words name."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from glm130b.config.errors import UserError

_KINDS: dict[str, Literal["lines", "parquet", "text"]] = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "lines",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
}
_COMPRESSIONS: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
SUFFIXES = f"{', '.join(_KINDS)}, all but .parquet also with {' or '.join(_COMPRESSIONS)} after it"


class Format(NamedTuple):
    """How a file holds its documents."""

    kind: Literal["lines", "parquet", "text"]
    """JSON lines, Parquet or plain text."""
    compression: Literal["gzip", "zstd"] | None

    @classmethod
    def of(cls, file: Path) -> "Format | None":
        """By the suffix; None when it is not known."""
        name = Path(file.name.lower())
        compression = _COMPRESSIONS.get(name.suffix)
        kind = _KINDS.get(Path(name.stem).suffix if compression else name.suffix)
        if kind is None or (kind == "parquet" and compression):
            return None
        return cls(kind, compression)


def find_files(words: Sequence[str | Path]) -> tuple[Path, ...]:
    """The files that the words name, in the order of the words: a file, a folder (all files of a known suffix in it and
    in its folders, sorted) or a glob (sorted; ``**`` crosses folders). A file that is named twice stands at its first
    place. Raises UserError with every word that names nothing.
    """
    found: dict[Path, None] = {}
    problems = []
    for word in map(str, words):
        files = list(_matches(word))
        problems += [] if files else [f"{word}: no file there that can be read; name a file ({SUFFIXES})"]
        unknown = [file for file in files if Format.of(file) is None]
        problems += [f"{file}: its suffix says nothing about its format; name it one of {SUFFIXES}" for file in unknown]
        found.update(dict.fromkeys(files))
    if problems:
        raise UserError(problems)
    return tuple(found)


def _matches(word: str) -> Iterator[Path]:
    """Files of one word; those that were found in a folder have known suffixes."""
    path = Path(word)
    if path.is_dir():
        yield from _inside(path)
    elif path.exists():
        yield path
    else:
        matches = map(Path, sorted(glob.glob(word, recursive=True)))  # noqa: PTH207 (Path.glob takes no absolute glob)
        yield from (match for match in matches if match.is_file())


def _inside(folder: Path) -> Iterator[Path]:
    """Hidden files and folders stay out; they are what programs leave behind."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Format.of(Path(name)):
                yield Path(root) / name
