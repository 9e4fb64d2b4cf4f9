"""What is wrong with the files of a split: every check reads its file once, in bounded memory, and yields problems."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm130b.data.arrays import BoolArray, Int64Array
from glm130b.data.corpus.indexed_dataset import IndexedDataset
from glm130b.data.corpus.origins import Origins
from glm130b.durable import FileSummary

MEND = "copy the corpus again, or remove the folder and run `glm130b prepare` again"
# Without the removal, prepare takes a folder whose files have their sizes for whole.
Advance = Callable[[int], object]
"""Told how many bytes more were read."""

_BLOCK_BYTES = 1 << 22
_BLOCK_ENTRIES = 1 << 18


class _Places:
    """How many places are bad, and which is the first."""

    def __init__(self) -> None:
        self.first, self.count = -1, 0

    def add(self, start: int, bad: BoolArray) -> None:
        """``bad`` marks the places from ``start`` on."""
        if not self.count and bad.any():
            self.first = start + int(bad.argmax())
        self.count += int(bad.sum())


def size_problems(file: Path, summary: FileSummary) -> Iterator[str]:
    """The file is there and has its size."""
    if not file.is_file():
        yield f"{file}: is missing; {MEND}"
    elif (found := file.stat().st_size) != summary.bytes:
        yield f"{file}: has {found} bytes, the manifest says {summary.bytes}; {MEND}"


def content_problems(file: Path, summary: FileSummary, *, advance: Advance) -> Iterator[str]:
    """The file's SHA-256 is the manifest's."""
    hashed = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            hashed.update(block)
            advance(len(block))
    yield from _hash_problems(file, hashed.hexdigest(), summary.sha256)


def index_problems(dataset: IndexedDataset, *, sequences_per_document: int | None = None) -> Iterator[str]:
    """Sequences lie one after the other, and documents cover them, with so many sequences each if a number is given."""
    lengths_differ, pointers_differ, documents_differ = _Places(), _Places(), _Places()
    pointer = 0
    for first, stop in _blocks(dataset.num_sequences):
        lengths = dataset.lengths(first, stop)
        ends = pointer + np.cumsum(lengths) * dataset.dtype.itemsize
        lengths_differ.add(first, lengths < 0)
        pointers_differ.add(first, dataset.pointers(first, stop) != np.concatenate(([pointer], ends[:-1])))
        pointer = int(ends[-1])
    for first, stop in _blocks(dataset.num_documents):
        counts = np.diff(dataset.document_indices(first, stop + 1))
        documents_differ.add(first, counts < 0 if sequences_per_document is None else counts != sequences_per_document)
    for what, places in (
        ("has a negative length", lengths_differ),
        ("does not start where the one before ends", pointers_differ),
    ):
        if places.count:
            yield f"{dataset.idx}: sequence {places.first} {what}, as {places.count} in all; {MEND}"
    if documents_differ.count:
        rule = "a negative number of" if sequences_per_document is None else f"not {sequences_per_document}"
        yield (
            f"{dataset.idx}: document {documents_differ.first} has {rule} sequences, as {documents_differ.count} "
            f"in all; {MEND}"
        )
    if pointer != (expected := dataset.num_tokens * dataset.dtype.itemsize):
        yield f"{dataset.idx}: its sequences end at byte {pointer} of the {expected} of {dataset.bin.name}; {MEND}"


def token_problems(
    dataset: IndexedDataset,
    *,
    vocab_size: int | None,
    eod: int | None,
    sha256: str | None,
    advance: Advance,
    see: Callable[[NDArray[np.integer]], object] = lambda tokens: None,
) -> Iterator[str]:
    """Every id is below ``vocab_size``, each document ends in ``eod``, and the .bin has its SHA-256; None: not asked.

    With ``eod``, the index must be sound. ``see`` is shown the tokens, some at a time.
    """
    hashed, strange, open_ended = hashlib.sha256(), _Places(), _Places()
    largest = np.iinfo(dataset.dtype).max if vocab_size is None else vocab_size - 1
    block_tokens = _BLOCK_BYTES // dataset.dtype.itemsize
    for start, stop in _blocks(dataset.num_tokens, block_tokens):
        tokens = dataset.tokens(start, stop - start)
        hashed.update(tokens.data)
        see(tokens)
        strange.add(start, (tokens < 0) | (tokens > largest))
        if eod is not None:
            document, ends = _document_ends(dataset, start, stop)
            open_ended.add(document, tokens[ends - start] != eod)
        advance(tokens.nbytes)
    if strange.count:
        yield (
            f"{dataset.bin}: token {strange.first} is id {dataset.tokens(strange.first, 1)[0]}, as {strange.count} in "
            f"all that are not 0 .. {largest}; {MEND}, or name the tokenizer it was made with"
        )
    if open_ended.count:
        yield (
            f"{dataset.bin}: document {open_ended.first} does not end in [eod] (id {eod}), as {open_ended.count} "
            f"in all; {MEND}"
        )
    if sha256 is not None:
        yield from _hash_problems(dataset.bin, hashed.hexdigest(), sha256)


def origin_problems(origins: Origins, *, num_documents: int, num_files: int) -> Iterator[str]:
    """One record for each document, each with a line of a file that the manifest names."""
    if origins.num_documents != num_documents:
        yield f"{origins.path}: {origins.num_documents} records for {num_documents} documents; {MEND}"
    strange = _Places()
    for first, stop in _blocks(origins.num_documents):
        records = origins.read(first, stop)
        strange.add(first, (records["file"] >= num_files) | (records["line"] == 0))
    if strange.count:
        yield (
            f"{origins.path}: record {strange.first} names no line of the manifest's {num_files} files, "
            f"as {strange.count} in all; {MEND}"
        )


def _document_ends(dataset: IndexedDataset, start: int, stop: int) -> tuple[int, Int64Array]:
    """The first document whose last token is in ``start .. stop``, and the last tokens of it and those after it."""
    first, begin = dataset.documents_from(start + 1, stop + 1)
    if stop == dataset.num_tokens:  # where the last one ends, a further one would begin
        begin = np.append(begin, stop)
    return first - 1, begin - 1


def _hash_problems(file: Path, found: str, expected: str) -> Iterator[str]:
    if found != expected:
        yield f"{file}: its SHA-256 is {found[:12]}.., the manifest says {expected[:12]}..; {MEND}"


def _blocks(count: int, size: int = _BLOCK_ENTRIES) -> Iterator[tuple[int, int]]:
    return ((first, min(first + size, count)) for first in range(0, count, size))
