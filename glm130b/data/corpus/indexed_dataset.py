"""Reading Megatron-core's IndexedDataset format: ``<prefix>.bin`` holds tokens, ``<prefix>.idx`` says where they part.

A reader of our own, for two reasons: importing Megatron-core takes seconds and hundreds of MB in every worker of every
rank, and its builder keeps the length of each sequence as a Python object, which no memory bound survives. The files
are the same to the byte; the tests read and write them with Megatron-core.

    .idx   magic, version, dtype code, number of sequences n, number of documents + 1 (34 bytes)
           length of each sequence in tokens        int32 [n]
           where each sequence starts in the .bin   int64 [n], in bytes
           first sequence of each document, and n   int64 [documents + 1]
    .bin   the tokens of all sequences, one after the other
"""

import os
import struct
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm130b.config.errors import UserError, unreadable
from glm130b.data.arrays import Int64Array
from glm130b.data.corpus.column import Column

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
DTYPE_CODES: dict[np.dtype[np.integer], int] = {
    np.dtype(name): code for name, code in (("u1", 1), ("i1", 2), ("<i2", 3), ("<i4", 4), ("<i8", 5), ("<u2", 8))
}

_MEND = "copy or make the corpus again"
_DOCUMENTS_AHEAD = 8
"""How many documents behind one that was searched for are looked at together."""


def dtype_for(vocab_size: int) -> np.dtype[np.integer]:
    """Two bytes a token where the ids allow it, else four; the same choice as Megatron-core's."""
    return np.dtype("<u2" if vocab_size < 65_500 else "<i4")


class IndexedDataset:
    """One pair of files, open; nothing of it is read that nobody asked for, and nothing stays resident.

    Pickled, it is opened again where it arrives.
    """

    def __init__(self, prefix: Path) -> None:
        """Raises UserError naming the file that is missing, foreign or damaged."""
        self.prefix = prefix
        self.bin, self.idx = (prefix.with_name(prefix.name + suffix) for suffix in (".bin", ".idx"))
        index, tokens = self._opened(self.idx), self._opened(self.bin)
        self.dtype, n, self.num_documents = _parsed(os.pread(index, HEADER.size, 0), idx=self.idx)
        _check_size(self.idx, num_sequences=n, num_documents=self.num_documents)
        bin_bytes = self.bin.stat().st_size
        self.num_sequences, self.num_tokens = n, bin_bytes // self.dtype.itemsize
        int32, int64, start = np.dtype("<i4"), np.dtype("<i8"), HEADER.size
        self._lengths = Column(self.idx, index, dtype=int32, offset=start, count=n)
        self._pointers = Column(self.idx, index, dtype=int64, offset=start + 4 * n, count=n)
        self._documents = Column(self.idx, index, dtype=int64, offset=start + 12 * n, count=self.num_documents + 1)
        self._tokens = Column(self.bin, tokens, dtype=self.dtype, offset=0, count=self.num_tokens)
        if bin_bytes != self._bytes_in_index():
            raise UserError(f"{self.bin}: {bin_bytes} bytes disagree with {self.idx.name}; {_MEND}")

    def __reduce__(self) -> tuple[type["IndexedDataset"], tuple[Path]]:
        return IndexedDataset, (self.prefix,)

    def tokens(self, start: int, length: int) -> NDArray[np.integer]:
        """Tokens ``start .. start + length`` of the .bin file, in its dtype. Raises OSError if it became shorter."""
        return self._tokens.read(start, start + length)

    def lengths(self, first: int, stop: int) -> Int64Array:
        """Tokens of each of the sequences ``first .. stop``."""
        return self._lengths.read(first, stop).astype(np.int64)

    def pointers(self, first: int, stop: int) -> Int64Array:
        """Where the sequences ``first .. stop`` start in the .bin file, in bytes."""
        return self._pointers.read(first, stop)

    def document_indices(self, first: int, stop: int) -> Int64Array:
        """First sequence of the documents ``first .. stop``; behind the last document stands ``num_sequences``."""
        return self._documents.read(first, stop)

    def document_starts(self, first: int, stop: int) -> Int64Array:
        """First token of the documents ``first .. stop``; document ``num_documents`` starts at ``num_tokens``.

        Raises UserError where the index contradicts itself.
        """
        if first == stop:
            return np.empty(0, np.int64)
        sequences = self._rising(self.document_indices(first, stop), self.num_sequences)
        low, high = int(sequences[0]), int(sequences[-1])
        pointers = self.pointers(low, min(high + 1, self.num_sequences))
        if high == self.num_sequences:  # documents without a sequence at the end, or the end itself
            pointers = np.append(pointers, self.num_tokens * self.dtype.itemsize)
        return self._rising(pointers[sequences - low] // self.dtype.itemsize, self.num_tokens)

    def documents_from(self, start: int, stop: int) -> tuple[int, Int64Array]:
        """The first document that begins at token ``start`` or later, and where all begin that do so before ``stop``.

        ``num_documents`` if none does.
        """
        first = self._document_from(start)
        starts = self.document_starts(first, min(first + _DOCUMENTS_AHEAD, self.num_documents))
        while first + len(starts) < self.num_documents and starts[-1] < stop:
            starts = self.document_starts(first, min(first + 4 * len(starts), self.num_documents))
        return first, starts[: starts.searchsorted(stop)]

    def _document_from(self, token: int) -> int:
        sequence = self._pointers.search(token * self.dtype.itemsize)
        # Mostly each document has as many sequences as any other, which is quickly seen.
        likely = -(-sequence * self.num_documents // self.num_sequences) if sequence else 0
        around = self.document_indices(max(likely - 1, 0), likely + 1).tolist()
        if around[-1] < sequence or (likely and around[0] >= sequence):
            likely = self._documents.search(sequence)
        return min(likely, self.num_documents)

    def _rising(self, places: Int64Array, last: int) -> Int64Array:
        if places[0] < 0 or places[-1] > last or (places[1:] < places[:-1]).any():
            raise UserError(f"{self.idx}: is damaged, its documents do not follow each other; {_MEND}")
        return places

    def _opened(self, path: Path) -> int:
        """The descriptor of a file, closed with this object."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise unreadable(path, error, mend=_MEND) from None
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _bytes_in_index(self) -> int:
        """Size that the .bin file must have; -1 if the ends of the columns contradict each other."""
        n = self.num_sequences
        ends = [int(self.document_indices(place, place + 1)[0]) for place in (0, self.num_documents)]
        if ends != [0, n] or (n and self.pointers(0, 1)[0] != 0):
            return -1
        return int(self.pointers(n - 1, n)[0] + self.lengths(n - 1, n)[0] * self.dtype.itemsize) if n else 0


def _parsed(header: bytes, *, idx: Path) -> tuple[np.dtype[np.integer], int, int]:
    """Dtype, number of sequences and number of documents of an index."""
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        raise UserError(f"{idx}: is no index of Megatron-core's IndexedDataset; {_MEND}")
    _, version, code, num_sequences, document_count = HEADER.unpack(header)
    dtypes = {code: dtype for dtype, code in DTYPE_CODES.items()}
    if version != VERSION:
        raise UserError(f"{idx}: is of version {version}, not {VERSION}; write it with a newer Megatron-core")
    if code not in dtypes:
        raise UserError(f"{idx}: dtype code {code} is no integer type; token ids are integers")
    if not document_count:
        raise UserError(f"{idx}: has no list of documents; {_MEND}")
    return dtypes[code], num_sequences, document_count - 1


def _check_size(idx: Path, *, num_sequences: int, num_documents: int) -> None:
    expected, found = HEADER.size + 12 * num_sequences + 8 * (num_documents + 1), idx.stat().st_size
    if num_sequences and found == expected + num_sequences:
        raise UserError(f"{idx}: is multimodal (it has a mode for each sequence); write it again without modes")
    if found != expected:
        raise UserError(f"{idx}: {found} bytes instead of the {expected} of its header; {_MEND}")
