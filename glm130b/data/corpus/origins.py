"""Where each document of a split came from: ``<split>.origins``, one record for each document, in their order.

Records are read by number with one small read, and searched in bounded memory: nothing of the file stays resident.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm130b.config.errors import unreadable
from glm130b.data.arrays import Int64Array

TEXT_HASH_BYTES = 16

RECORD = np.dtype([("text_hash", "u1", TEXT_HASH_BYTES), ("line", "<u8"), ("file", "<u4")])
"""``text_hash`` as of ``text_hash``, ``line`` from 1 on (row of a Parquet file, else number of the record), ``file``
an index into the manifest's ``inputs.files``; 28 bytes, packed."""

OriginArray = NDArray[np.void]
"""Records of dtype ``RECORD``."""

_BLOCK_RECORDS = 1 << 18  # 7 MiB


def text_hash(text: str) -> bytes:
    """What a document is known by: 16 bytes of BLAKE2b over its UTF-8; for an instruction, over its prompt.

    >>> text_hash("").hex()
    'cae66941d9efbd404e4d88758ea67670'
    """
    return hashlib.blake2b(text.encode(), digest_size=TEXT_HASH_BYTES).digest()


def origin_records(
    *, text_hashes: Sequence[bytes], lines: Sequence[int] | Int64Array, files: int | Sequence[int] | Int64Array
) -> OriginArray:
    """The records of some documents, in order; ``files`` may be one number for all."""
    records = np.empty(len(text_hashes), RECORD)
    records["text_hash"] = np.frombuffer(b"".join(text_hashes), np.uint8).reshape(-1, TEXT_HASH_BYTES)
    records["line"] = lines
    records["file"] = files
    return records


class Origins:
    """The records of one split, read from their file."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if there is no such file."""
        self.path = path
        try:
            self.num_documents = path.stat().st_size // RECORD.itemsize
        except OSError as error:
            raise unreadable(path, error, mend="copy or make the corpus again") from None

    def read(self, first: int, stop: int) -> OriginArray:
        """The records of documents ``first .. stop``."""
        return np.fromfile(self.path, RECORD, count=stop - first, offset=first * RECORD.itemsize)

    def find(self, text_hash: bytes) -> Iterator[int]:
        """Numbers of the documents with this hash, rising."""
        wanted = np.frombuffer(text_hash, np.uint64)
        for first in range(0, self.num_documents, _BLOCK_RECORDS):
            records = self.read(first, min(first + _BLOCK_RECORDS, self.num_documents))
            hashes = np.ascontiguousarray(records["text_hash"]).view(np.uint64)
            yield from (first + np.flatnonzero((hashes == wanted).all(axis=1))).tolist()
