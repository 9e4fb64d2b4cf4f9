"""Writing Megatron-core's IndexedDataset format (its layout: ``indexed_dataset.py``) as a stream.

The index stands in columns, so nothing but the lengths need be kept until the end, and those wait in a file.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm130b.data.arrays import Int64Array
from glm130b.data.corpus.indexed_dataset import DTYPE_CODES, HEADER, MAGIC, VERSION, dtype_for
from glm130b.durable import DurableFile, FileSummary

_BLOCK_SEQUENCES = 1 << 18


class IndexedDatasetWriter:
    """Writes ``<prefix>.bin`` and, when closed, ``<prefix>.idx``; every document has as many sequences as any other."""

    def __init__(self, prefix: Path, *, vocab_size: int, sequences_per_document: int) -> None:
        self.sequences_per_document = sequences_per_document
        self.num_sequences = self.num_tokens = 0
        self._vocab_size, self._dtype = vocab_size, dtype_for(vocab_size)
        self._prefix = prefix
        self._bin = DurableFile(prefix.with_name(f"{prefix.name}.bin"))
        self._lengths = prefix.with_name(f".{prefix.name}.lengths")
        self._spool = self._lengths.open("wb", buffering=1 << 20)

    @property
    def num_documents(self) -> int:
        return self.num_sequences // self.sequences_per_document

    def add(self, tokens: NDArray[np.integer], lengths: Int64Array) -> None:
        """Append whole documents: their tokens one after the other, and the length of each sequence.

        Raises ValueError if the lengths do not add up to the tokens or to whole documents, or an id is out of range.
        """
        if len(lengths) % self.sequences_per_document or lengths.sum() != len(tokens):
            raise ValueError(f"{len(lengths)} sequences of {lengths.sum()} tokens in all, but {len(tokens)} tokens")
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < self._vocab_size:
            raise ValueError(f"ids {tokens.min()} .. {tokens.max()} for a vocabulary of {self._vocab_size}")
        if len(lengths) and not 0 <= lengths.min() <= lengths.max() < 2**31:
            raise ValueError(f"sequences of {lengths.min()} .. {lengths.max()} tokens; the format holds 0 .. 2^31 - 1")
        self._bin.write(np.ascontiguousarray(tokens, self._dtype).data)
        self._spool.write(np.ascontiguousarray(lengths, np.int32).data)
        self.num_sequences += len(lengths)
        self.num_tokens += len(tokens)

    def close(self) -> dict[str, FileSummary]:
        """Write the index, and return when both files are on the disk: what they must look like, by name."""
        self._spool.close()
        index = DurableFile(self._prefix.with_name(f"{self._prefix.name}.idx"))
        code = DTYPE_CODES[self._dtype]
        index.write(HEADER.pack(MAGIC, VERSION, code, self.num_sequences, self.num_documents + 1))
        for lengths in self._spooled():
            index.write(lengths.data)
        pointer = 0
        for lengths in self._spooled():
            ends = pointer + np.cumsum(lengths, dtype=np.int64) * self._dtype.itemsize
            index.write(np.concatenate(([pointer], ends[:-1])).data)
            pointer = int(ends[-1])
        for first in range(0, self.num_documents + 1, _BLOCK_SEQUENCES):
            documents = np.arange(first, min(first + _BLOCK_SEQUENCES, self.num_documents + 1), dtype=np.int64)
            index.write((documents * self.sequences_per_document).data)
        self._lengths.unlink()
        return {file.path.name: file.close() for file in (self._bin, index)}

    def abandon(self) -> None:
        """Close without an index; what was written stays."""
        self._bin.abandon()
        self._spool.close()

    def _spooled(self) -> Iterator[NDArray[np.int32]]:
        with self._lengths.open("rb") as stream:
            while len(lengths := np.fromfile(stream, np.int32, _BLOCK_SEQUENCES)):
                yield lengths
