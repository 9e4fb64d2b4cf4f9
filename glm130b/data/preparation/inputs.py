"""What ``glm130b prepare`` is asked for."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm130b.data.corpus.manifest import Kind
from glm130b.data.preparation.rendering import Pair, PairsOf, Renderer
from glm130b.data.reading.documents import texts_of
from glm130b.data.reading.pieces import Reading


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Files that belong together, and how much of them goes into the corpus."""

    name: str
    files: tuple[Path, ...]
    renderer: Renderer | None = None
    """Makes pairs of the records of instructions; None for texts. It is pickled, and its ``repr`` must say all that its
    pairs depend on: shards are known by it."""
    cap: int | None = None
    """Most documents; those with the smallest hashes stay."""
    weight: float = 1.0
    """How often each document that the cap leaves is written: 2 writes it twice, 0.5 every other one, drawn by hash."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A corpus to prepare."""

    kind: Kind
    tokenizer: Path
    datasets: tuple[Dataset, ...]
    reading: Reading
    validation_share: float
    drop_duplicates: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """All files in the order of their documents; a file of two datasets is there twice."""
        return tuple(file for dataset in self.datasets for file in dataset.files)

    def is_held_out(self, text: str) -> bool:
        """Whether a document whose side this text decides is of the validation split."""
        return int.from_bytes(blake2b(text.encode())[:8], "big") < held_out_below(self.validation_share)


@dataclass(frozen=True)
class FieldPairs:
    """Pairs whose prompt and answer are fields of the record."""

    inputs: str
    targets: str

    def for_shard(self, is_held_out: Callable[[str], bool]) -> PairsOf:
        return self._pairs

    def _pairs(self, record: dict[str, Any]) -> list[Pair]:
        prompt, answer = texts_of(record, ((self.inputs, self.targets),))
        return [Pair(prompt, answer, side=prompt)]


def blake2b(*parts: bytes) -> bytes:
    """16 bytes that say which bytes these were; of one part, the text hash of the corpus."""
    hashed = hashlib.blake2b(parts[0], digest_size=16)
    for part in parts[1:]:
        hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.digest()


def held_out_below(share: float) -> int:
    """A document is held out if the first 8 bytes of its hash, as a big-endian number, are below this."""
    return int(share * 2**64)
