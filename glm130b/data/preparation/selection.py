"""How often each document is written: duplicates not at all, a dataset's cap and weight drawn by hash."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glm130b.data.arrays import BoolArray, Int64Array
from glm130b.data.preparation.duplicates import Duplicates
from glm130b.data.preparation.inputs import Dataset

_UInt64Array = NDArray[np.uint64]


def keyed(content: _UInt64Array, *purpose: str) -> _UInt64Array:
    """A number from 0 to 2^64 of each hash (uint64 [n, 2]), unrelated between purposes: SplitMix64's finaliser."""
    key = hashlib.blake2b("\0".join(purpose).encode(), digest_size=8).digest()
    mixed = content[:, 1] ^ np.uint64(int.from_bytes(key, "big"))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@dataclass
class Cap:
    """Takes the documents with the smallest keys, and of those with the largest of these keys the first ones."""

    largest: np.uint64
    ties: int
    """Documents with the largest key that are still to be taken."""

    @classmethod
    def find(cls, keys: Iterable[_UInt64Array], cap: int) -> "Cap | None":
        """For the keys of all documents; None if there are no more than the cap. Holds twice the cap's keys."""
        smallest = np.empty(0, np.uint64)
        total = 0
        for some in keys:
            total += len(some)
            smallest = np.concatenate([smallest, some])
            if len(smallest) > 2 * cap:
                smallest = np.partition(smallest, cap - 1)[:cap]
        if total <= cap:
            return None
        smallest = np.partition(smallest, cap - 1)[:cap]
        largest = smallest.max()
        return cls(largest, int((smallest == largest).sum()))

    def take(self, keys: _UInt64Array) -> BoolArray:
        """Which of the next documents stay."""
        tied = keys == self.largest
        first = tied & (np.cumsum(tied) <= self.ties)
        self.ties -= int(first.sum())
        return (keys < self.largest) | first


class Selection:
    """Decides on the documents in their order."""

    def __init__(self, *, duplicates: Duplicates | None, caps: dict[str, Cap]) -> None:
        """``caps`` by dataset."""
        self._duplicates, self._caps = duplicates, caps
        self.duplicates = self.capped = 0
        """Documents that were left out."""

    def copies(self, content: _UInt64Array, *, first: int, dataset: Dataset) -> Int64Array:
        """How often each of the documents from number ``first`` on is written; ``content`` are their hashes."""
        copies = np.full(len(content), int(dataset.weight), np.int64)
        fraction = dataset.weight - int(dataset.weight)
        if fraction:
            copies += keyed(content, "weight", dataset.name) < np.uint64(int(fraction * 2**64))
        stays = np.ones(len(content), np.bool_)
        if self._duplicates:
            stays = ~self._duplicates.among(first, len(content))
            self.duplicates += int((~stays).sum())
        if cap := self._caps.get(dataset.name):
            taken = stays.copy()
            taken[stays] = cap.take(keyed(content[stays], "cap", dataset.name))
            self.capped += int((stays & ~taken).sum())
            stays = taken
        return np.where(stays, copies, 0)
