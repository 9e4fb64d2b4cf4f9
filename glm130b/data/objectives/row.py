"""One training row, as data makes it and the model sees it."""

from dataclasses import dataclass
from typing import NamedTuple

from glm130b.data.arrays import BoolArray, Int64Array


class Segment(NamedTuple):
    """One sample inside a row, in tokens.

    A query in the context sees the whole context of its segment; a query in the target sees the context and the
    targets up to itself. Nothing outside the segment is seen, and padding belongs to no segment.
    """

    start: int
    context_length: int
    target_length: int

    @property
    def end(self) -> int:
        """First token after the segment."""
        return self.start + self.context_length + self.target_length


class Origin(NamedTuple):
    """Where a segment's text stands in its corpus: ``length`` tokens of the split's stream from ``start`` on."""

    start: int
    length: int


@dataclass(frozen=True)
class Row:
    """``sequence_length`` tokens and what is to be learned from them; every array has that length.

    Padding is token 0, outside any segment, with no loss. ``block_positions`` counts 1, 2, 3.. inside a target and is 0
    elsewhere; only models with two-dimensional positions read it.
    """

    tokens: Int64Array
    targets: Int64Array
    loss_mask: BoolArray
    positions: Int64Array
    block_positions: Int64Array
    segments: tuple[Segment, ...]
    objective: str
    """``mask``, ``smask``, ``gmask`` or ``instruction``."""
    source: str
    """Name of the source in the config."""
    origins: tuple[Origin, ...] = ()
    """Per segment; of a pair, prompt and answer together."""
