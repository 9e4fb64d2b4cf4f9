"""The law of [MASK] blanks: how many, how long, where (GLM paper, section 2.1; rates of the GLM-130B run).

P pieces of text are drawn for together, S blanks in all, so that a row costs as many calls as a piece.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glm130b.config.sections import MaskConfig
from glm130b.data.arrays import Int64Array

# Share of pieces whose blanks may be stopped before they cover their share of the text, for want of room.
SHORT_OF_ROOM = 1e-3


class Spans(NamedTuple):
    """Blanks of several pieces, in the order in which they stand; int64 [S] each."""

    piece: Int64Array
    """Index of the piece."""
    start: Int64Array
    """First token, counted in the piece."""
    length: Int64Array


def draw_spans(rng: np.random.Generator, *, num_tokens: Int64Array, most: Int64Array, mask: MaskConfig) -> Spans:
    """Spans in pieces of ``num_tokens`` [P], at least one in each and no more than ``most`` [P].

    Lengths follow a Poisson law truncated to 1..``span_maximum_tokens``, drawn until ``coverage`` of the piece is
    blanked or it has its most spans. There is a token between any two, and every such placement is equally likely.
    """
    pieces = np.arange(len(num_tokens))
    drawn_PM = _lengths_law(mask).searchsorted(rng.random((len(pieces), int(most.max()))), side="right") + 1
    drawn_PM = np.minimum(drawn_PM, num_tokens[:, None])
    covered_PM, before_M = drawn_PM.cumsum(axis=1), np.arange(drawn_PM.shape[1])
    is_needed_PM = covered_PM - drawn_PM < mask.coverage * num_tokens[:, None]
    has_place_PM = covered_PM + before_M <= num_tokens[:, None]
    is_taken_PM = is_needed_PM & has_place_PM & (before_M < most[:, None])
    counts, lengths = np.count_nonzero(is_taken_PM, axis=1), drawn_PM[is_taken_PM]
    piece, first_span = pieces.repeat(counts), counts.cumsum() - counts
    blanked = np.add.reduceat(lengths, first_span)

    # With a token after each span but the last as a part of it, the spans and the other unmasked tokens of a piece can
    # stand in any order. They are shuffled as cells, the spans first among them; a key's whole part keeps pieces apart.
    cells = num_tokens - blanked + 1
    first_cell = cells.cumsum() - cells
    shuffled = (rng.random(int(cells.sum())) + pieces.repeat(cells)).argsort()
    cell = shuffled[np.arange(len(piece)) + (first_cell - first_span)[piece]]
    rising = cell.argsort()
    lengths = lengths[rising]
    blanked_before = lengths.cumsum() - lengths - (blanked.cumsum() - blanked)[piece]
    return Spans(piece, cell[rising] - first_cell[piece] + blanked_before, lengths)


@lru_cache
def _lengths_law(mask: MaskConfig) -> NDArray[np.float64]:
    """The chance of a length below 2, 3, ..; what is not below the last is of ``span_maximum_tokens``."""
    return np.cumsum(span_length_probabilities(mask))[:-1]


@lru_cache
def span_length_probabilities(mask: MaskConfig) -> NDArray[np.float64]:
    """Probability of the lengths 1..``span_maximum_tokens``: Poisson, truncated and normalised."""
    lengths = range(1, mask.span_maximum_tokens + 1)
    logarithms = np.array([n * math.log(mask.span_mean_tokens) - math.lgamma(n + 1) for n in lengths])
    weights = np.exp(logarithms - logarithms.max())
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


@lru_cache
def most_spans(longest: int, mask: MaskConfig) -> Int64Array:
    """How many spans a piece of 0, 1, .. ``longest`` tokens may have; int64 [longest + 1].

    A piece is short of room if that many spans do not yet cover its share. The chance of that is computed from the law
    itself; the number is the smallest for which it is at most ``SHORT_OF_ROOM``.
    """
    law = np.concatenate(([0.0], span_length_probabilities(mask)))
    needed = np.maximum(1, np.ceil(mask.coverage * np.arange(longest + 1))).astype(np.int64)
    chances, most = np.array([1.0]), np.zeros(longest + 1, np.int64)  # of the sum of so many lengths
    while (short := _below(chances, needed) > SHORT_OF_ROOM).any():
        most += short
        chances = np.convolve(chances, law)[: int(needed[-1])]
    return most


def _below(chances: NDArray[np.float64], limits: Int64Array) -> NDArray[np.float64]:
    """The chance of a value below each limit, of the chances of 0, 1, 2.."""
    return np.cumsum(chances)[np.minimum(limits, len(chances)) - 1]


def uniform(rng: np.random.Generator, lowest: Int64Array, highest: Int64Array) -> Int64Array:
    """Uniform integers between the bounds, both included."""
    return lowest + (rng.random(len(lowest)) * (highest - lowest + 1)).astype(np.int64)
