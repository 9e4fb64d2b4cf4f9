"""What tells one corpus or tokenizer from another without reading all of it: the same wherever the files lie."""

import hashlib
import json
from pathlib import Path

from glm130b.config.files import CORPUS_FILES
from glm130b.data.corpus.corpus import is_bare
from glm130b.data.corpus.manifest import NAME as MANIFEST

_EDGE_BYTES = 1 << 20
"""Of an index that are read at each of its ends."""


def corpus_fingerprint(path: Path) -> str:
    """Of what a prepared folder's manifest says of the contents, or of the ends of a Megatron index; and of all sizes.

    Raises OSError when a file cannot be read, and ValueError when the manifest is none.
    """
    if is_bare(path):
        index, tokens = (path.with_name(path.name + suffix) for suffix in (".idx", ".bin"))
        return _fingerprint(_edges(index), index, tokens)
    try:  # the SHA-256 of every file; what they were prepared from may have moved, or be touched
        contents = json.loads((path / MANIFEST).read_bytes())["splits"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path / MANIFEST} is damaged") from error
    return _fingerprint(json.dumps(contents, sort_keys=True).encode(), *(path / file for file in CORPUS_FILES))


def file_fingerprint(path: Path) -> str:
    """Of a file's size and contents. Raises OSError."""
    return _fingerprint(path.read_bytes(), path)


def _fingerprint(contents: bytes, *sized: Path) -> str:
    """Bytes of all files, and a digest of the contents and of each one's size."""
    digest, sizes = hashlib.sha256(contents), [file.stat().st_size for file in sized]
    digest.update(f"\0{sizes}".encode())
    return f"{sum(sizes):,} bytes ({digest.hexdigest()[:12]})"


def _edges(file: Path) -> bytes:
    with file.open("rb") as stream:
        start = stream.read(_EDGE_BYTES)
        stream.seek(max(_EDGE_BYTES, file.stat().st_size - _EDGE_BYTES))
        return start + stream.read()
