"""Which tokens of a stretch of text become samples, and in which slot of the row."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from glm130b.data.arrays import Int64Array


class Stretch(NamedTuple):
    """Consecutive tokens of a corpus."""

    start: int
    """First token, in the split's stream."""
    tokens: Int64Array
    ends: Sequence[int]
    """Where a sample has to end, counted in the stretch, rising: at the end of each document, and of the stretch."""


class Pieces(NamedTuple):
    """Parts of a stretch, in its order, each the text of a sample; int64 [P] each."""

    start: Int64Array
    """First token, counted in the stretch."""
    length: Int64Array
    slot: Int64Array
    """Slot of the row, rising; the pieces of one slot stand in it side by side."""


@dataclass(frozen=True)
class Room:
    """What the slots of a row hold."""

    num_slots: int
    slot_tokens: int
    """Tokens of the row that a slot takes."""
    capacity: int
    """What a slot holds, as ``needed`` counts it."""
    needed: Sequence[int]
    """How much of its slot a piece of 0, 1, 2.. tokens needs, rising from 0."""

    def lay_out(self, rng: np.random.Generator, ends: Sequence[int]) -> Pieces:
        """Cut a stretch at ``ends`` into pieces, as much of it as there is room for; the rest is left out, where is
        drawn."""
        pieces = self._pieces(0, ends)
        if left_over := ends[-1] - sum(length for _, length, _ in pieces):
            pieces = self._pieces(int(rng.integers(left_over + 1)), ends)
        return Pieces(*np.array(pieces).T)

    def _pieces(self, start: int, ends: Sequence[int]) -> list[tuple[int, int, int]]:
        """Start, length and slot of the pieces from token ``start`` on."""
        pieces, document = [], bisect_right(ends, start)
        for slot in range(self.num_slots):
            free = self.capacity
            while start < ends[-1] and (length := min(ends[document] - start, bisect_right(self.needed, free) - 1)):
                pieces.append((start, length, slot))
                free -= self.needed[length]
                start += length
                document += start == ends[document]
        return pieces
