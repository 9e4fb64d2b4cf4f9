"""The law of [MASK] blanks: how many, how long, where (GLM paper, section 2.1; rates of the GLM-130B run)."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from glm130b.config.sections import MaskConfig

# Share of pieces whose blanks may be stopped before they cover their share of the text, for want of room.
SHORT_OF_ROOM = 1e-3


def draw_spans(
    rng: np.random.Generator, *, num_tokens: int, slot_tokens: int, mask: MaskConfig, single: bool = False
) -> list[tuple[int, int]]:
    """Half-open spans in a text of ``num_tokens``, in rising order, with a token between any two.

    Lengths follow a Poisson law truncated to 1..``span_maximum_tokens``, drawn until ``coverage`` of the text is
    blanked; with ``single`` one span is drawn. Every placement without contact is equally likely. The sample that is
    made of the text, one [MASK] and one [sop] longer per span, fits ``slot_tokens``: where the next span would not
    fit, drawing stops.
    """
    most = 1 if single else max(1, most_spans(slot_tokens, num_tokens))
    law = np.cumsum(span_length_probabilities(mask))
    lengths = np.minimum(np.searchsorted(law, rng.random(most) * law[-1], side="right") + 1, num_tokens)
    covered = np.cumsum(lengths)
    needed = int(np.searchsorted(covered, mask.coverage * num_tokens)) + 1
    placeable = int(np.sum(covered + np.arange(most) <= num_tokens))
    # The span that completes the coverage is longer than others, so it must not always stand last.
    lengths = rng.permutation(lengths[: min(needed, placeable)])
    # A gap token goes to each span but the last; the spans and the other unmasked tokens can then stand in any order.
    free = num_tokens - int(lengths.sum()) - (len(lengths) - 1)
    order = np.sort(rng.choice(free + len(lengths), size=len(lengths), replace=False))
    starts = order + np.cumsum(lengths) - lengths
    return [(int(start), int(start + length)) for start, length in zip(starts, lengths, strict=True)]


def most_spans(slot_tokens: int, num_tokens: int) -> int:
    """Spans that a text may have in its slot: each adds a [MASK] and an [sop]."""
    return (slot_tokens - num_tokens) // 2


@lru_cache
def span_length_probabilities(mask: MaskConfig) -> NDArray[np.float64]:
    """Probability of the lengths 1..``span_maximum_tokens``: Poisson, truncated and normalised."""
    lengths = range(1, mask.span_maximum_tokens + 1)
    logarithms = np.array([n * math.log(mask.span_mean_tokens) - math.lgamma(n + 1) for n in lengths])
    weights = np.exp(logarithms - logarithms.max())
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


@lru_cache
def piece_tokens(slot_tokens: int, mask: MaskConfig) -> int:
    """Tokens of text in a slot: the most that leave room for the blanks.

    A piece is short of room if as many spans as fit its slot (``most_spans``) do not yet cover its share. The chance
    of that is computed from the law itself; the piece is the longest for which it is at most ``SHORT_OF_ROOM``.
    """
    law = np.concatenate(([0.0], span_length_probabilities(mask)))
    chances = [np.array([1.0])]  # of the sum of 0, 1, 2.. span lengths, below what the longest piece needs
    for _ in range(most_spans(slot_tokens, 1)):
        chances.append(np.convolve(chances[-1], law)[: math.ceil(mask.coverage * slot_tokens)])

    def is_roomy(num_tokens: int) -> bool:
        too_few = chances[most_spans(slot_tokens, num_tokens)][: math.ceil(mask.coverage * num_tokens)]
        return num_tokens + 2 <= slot_tokens and float(too_few.sum()) <= SHORT_OF_ROOM

    return next(num_tokens for num_tokens in range(slot_tokens, 0, -1) if is_roomy(num_tokens))
