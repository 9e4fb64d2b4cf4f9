"""Tokenised parts of the input on their way into a corpus: a folder each, whole or not there."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm130b.data.arrays import Int64Array
from glm130b.data.corpus.indexed_dataset import dtype_for
from glm130b.data.corpus.manifest import Kind
from glm130b.data.corpus.writer import SEQUENCES_PER_DOCUMENT
from glm130b.data.reading.rejection import Rejection
from glm130b.durable import DurableFile, sync_folder

Documents = NDArray[np.void]
"""Records of ``document_dtype``."""

_BLOCK_DOCUMENTS = 1 << 16
_BLOCK_TOKENS = 1 << 22
_UNFINISHED = ".working"


def document_dtype(kind: Kind) -> np.dtype[np.void]:
    """One document of a shard: its hashes, its place, the tokens of each of its sequences."""
    return np.dtype(
        [
            ("text_hash", "u1", 16),
            ("content", ">u8", 2),  # hash of all its texts: two documents that agree in it are duplicates
            ("side", ">u8"),  # decides whether it is held out
            ("piece", "<u4"),  # of the shard
            ("line", "<u8"),  # of the piece, from 1 on
            ("lengths", "<u4", SEQUENCES_PER_DOCUMENT[kind]),
        ]
    )


@dataclass
class Summary:
    """What a shard holds."""

    records: int
    """Good and bad ones."""
    documents: int
    rejected: dict[str, int]
    """By kind."""
    lines: list[int]
    """Of each piece."""


class ShardWriter:
    """Writes a shard beside its place; when its context ends without an error it is moved there."""

    def __init__(self, folder: Path, *, kind: Kind, vocab_size: int) -> None:
        self._folder = folder
        self._working = folder.with_name(f"{folder.name}.{os.getpid()}{_UNFINISHED}")
        shutil.rmtree(self._working, ignore_errors=True)
        self._working.mkdir(parents=True)
        self._token_dtype, self._document_dtype = dtype_for(vocab_size), document_dtype(kind)
        names = ("tokens", "documents", "rejects.jsonl")
        self._tokens, self._documents, self._rejects = self._files = [DurableFile(self._working / it) for it in names]
        self._rejected: Counter[str] = Counter()
        self._num_documents = 0
        self.records = 0
        """Counted by the caller."""
        self.lines: list[int] = []
        """Of each piece, filled by the caller."""

    def add(self, tokens: NDArray[np.integer], documents: Documents) -> None:
        """Append documents and their tokens."""
        self._tokens.write(np.ascontiguousarray(tokens, self._token_dtype).data)
        self._documents.write(np.ascontiguousarray(documents, self._document_dtype).view(np.uint8).data)
        self._num_documents += len(documents)

    def reject(self, *, piece: int, line: int, error: ValueError) -> None:
        """Append a record that is no document."""
        kind = error.kind if isinstance(error, Rejection) else "not rendered"
        self._rejected[kind] += 1
        row = {"piece": piece, "line": line, "kind": kind, "reason": str(error)}
        self._rejects.write(f"{json.dumps(row)}\n".encode())

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            for file in self._files:
                with suppress(OSError):  # it was told already
                    file.abandon()
            shutil.rmtree(self._working, ignore_errors=True)  # a finished shard is no longer there

    def _finish(self) -> None:
        for file in self._files:
            file.close()
        summary = DurableFile(self._working / "summary.json")
        held = Summary(self.records, self._num_documents, dict(self._rejected), self.lines)
        summary.write(json.dumps(asdict(held)).encode())
        summary.close()
        self._working.rename(self._folder)
        sync_folder(self._folder.parent)


class ShardReader:
    """A finished shard."""

    def __init__(self, folder: Path, *, kind: Kind, vocab_size: int) -> None:
        self._folder = folder
        self._token_dtype, self._document_dtype = dtype_for(vocab_size), document_dtype(kind)
        self.summary = Summary(**json.loads((folder / "summary.json").read_bytes()))

    def documents(self) -> Iterator[Documents]:
        """All documents in order, some at a time."""
        with (self._folder / "documents").open("rb") as stream:
            while len(documents := np.fromfile(stream, self._document_dtype, _BLOCK_DOCUMENTS)):
                yield documents

    def blocks(self) -> Iterator[tuple[Documents, NDArray[np.integer]]]:
        """All documents with their tokens, some at a time."""
        with (self._folder / "tokens").open("rb") as stream:
            for documents in self.documents():
                ends = document_lengths(documents).cumsum()
                start = 0
                while start < len(documents):
                    before = int(ends[start - 1]) if start else 0
                    stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK_TOKENS, side="right")))
                    yield documents[start:stop], np.fromfile(stream, self._token_dtype, int(ends[stop - 1]) - before)
                    start = stop

    def rejects(self) -> Iterator[dict[str, Any]]:
        """{piece, line, kind, reason} of each record that is no document, in order."""
        with (self._folder / "rejects.jsonl").open("rb") as lines:
            yield from map(json.loads, lines)


def document_lengths(documents: Documents) -> Int64Array:
    """Tokens of each document, all its sequences together."""
    lengths: Int64Array = documents["lengths"].reshape(len(documents), -1).sum(axis=1, dtype=np.int64)
    return lengths


def remove_all_but(folder: Path, keys: set[str]) -> None:
    """Remove shards that nobody asks for any more, and unfinished ones."""
    for found in folder.iterdir():
        if found.name not in keys:
            shutil.rmtree(found)
