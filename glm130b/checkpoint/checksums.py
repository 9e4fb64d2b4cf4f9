"""``checksums.json``: how large every other file of a checkpoint is, and its SHA-256."""

import errno
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from glm130b.durable import FileSummary

CHECKSUMS = "checksums.json"
_FILES = TypeAdapter(dict[str, FileSummary])
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Of a file in the checkpoint's own folder."""
_BLOCK_BYTES = 1 << 22
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""No other error says something of the file: it may be of the file system, or of this process."""


def to_json(summaries: Mapping[str, FileSummary]) -> str:
    """Text of ``checksums.json``."""
    return json.dumps({name: summaries[name].model_dump() for name in sorted(summaries)}, indent=1)


def summed_files(checkpoint: Path) -> dict[str, FileSummary]:
    """What the files were when they were written, by name. Raises OSError, and ValueError when that is not told."""
    summaries: dict[str, FileSummary] = _FILES.validate_json((checkpoint / CHECKSUMS).read_bytes())
    if strangers := [name for name in summaries if not _NAME.fullmatch(name)]:
        raise ValueError(f"names {strangers[0]!r}, which is no file of a checkpoint")
    if uncovered := [name for name in ("run.json", "tensors.json") if name not in summaries]:
        raise ValueError(f"leaves out {uncovered[0]}")
    return summaries


def verify(checkpoint: Path, part: slice = slice(None), *, good: set[Path] | None = None) -> list[str]:
    """What is wrong with the checkpoint, or with a ``part`` of its files in the order of their names: one sentence a
    file, none for a good one.

    Files in ``good`` are not read again, and those that are found so are added, for a next try.

    Raises OSError naming the file when one cannot be read here and now, which is no damage.
    """
    good = set() if good is None else good
    try:
        summaries = summed_files(checkpoint)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _NOT_THERE:
            raise OSError(error.errno, error.strerror, str(checkpoint / CHECKSUMS)) from error
        return [f"{checkpoint / CHECKSUMS}: {_reason(error)}"]
    problems = []
    for file in (checkpoint / name for name in sorted(summaries)[part]):
        if file in good:
            continue
        if damage := _damage(file, summaries[file.name]):
            problems.append(f"{file}: {damage}")
        else:
            good.add(file)
    return problems


def _damage(file: Path, summary: FileSummary) -> str | None:
    try:
        if (size := file.stat().st_size) != summary.bytes:
            return f"has {size} bytes, and had {summary.bytes} when it was written"
        if _sha256(file) != summary.sha256:
            return "is not what was written: its SHA-256 differs"
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise OSError(error.errno, error.strerror, str(file)) from error  # a read does not name it
        return _reason(error)
    return None


def _sha256(file: Path) -> str:
    digest, block = hashlib.sha256(), bytearray(_BLOCK_BYTES)
    with file.open("rb", buffering=0) as stream:
        while read := stream.readinto(block):
            digest.update(memoryview(block)[:read])
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    return "is not what was written: it " + (
        "is no list of files" if isinstance(error, ValidationError) else str(error)
    )
