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
    in its folders, sorted) or a glob (sorted; ``**`` crosses folders). Links are followed, and a file that is named
    twice, in whatever spelling, stands at its first place. Raises UserError with every word that names nothing and
    every folder that cannot be read.
    """
    found: dict[str, Path] = {}  # by the path that links lead to
    problems: list[str] = []
    for word in map(str, words):
        files = list(_matches(word, problems))
        problems += [] if files else [f"{word}: no file there that can be read; name a file ({SUFFIXES})"]
        unknown = [file for file in files if Format.of(file) is None]
        problems += [f"{file}: its suffix says nothing about its format; name it one of {SUFFIXES}" for file in unknown]
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    if problems:
        raise UserError(problems)
    return tuple(found.values())


def files_left_out(words: Sequence[str | Path]) -> tuple[Path, ...]:
    """What ``find_files`` passes by in the folders among the words because of its suffix."""
    inside = (file for word in words if Path(word).is_dir() for file in _inside(Path(word), []))
    return tuple(file for file in inside if Format.of(file) is None)


def _matches(word: str, problems: list[str]) -> Iterator[Path]:
    """Files of one word; those that were found in a folder have known suffixes."""
    path = Path(word)
    if path.is_dir():
        yield from (file for file in _inside(path, problems) if Format.of(file))
    elif path.exists():
        yield path
    else:
        matches = map(Path, sorted(glob.glob(word, recursive=True)))  # noqa: PTH207 (Path.glob takes no absolute glob)
        yield from (match for match in matches if match.is_file())


def _inside(folder: Path, problems: list[str]) -> Iterator[Path]:
    """All files of a folder and its folders, of any suffix; folders that cannot be read go into ``problems``.

    Hidden files and folders stay out; they are what programs leave behind.
    """

    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read ({error.strerror}); let it be read or move it away")

    walked: set[str] = set()  # a link may lead back to a folder above it
    for root, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        if (real := os.path.realpath(root)) in walked:
            folders.clear()
            continue
        walked.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root) / name for name in sorted(names) if not name.startswith("."))
