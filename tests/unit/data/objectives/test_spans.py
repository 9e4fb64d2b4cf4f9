"""Blanks follow their law, and what they need fits the slot."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.config.sections import MaskConfig
from glm130b.data.spans import SHORT_OF_ROOM, draw_spans, most_spans, piece_tokens, span_length_probabilities

GLM_130B = MaskConfig()


def poisson(mean: float, maximum: int) -> list[float]:
    weights = [math.exp(-mean) * mean**n / math.factorial(n) for n in range(1, maximum + 1)]
    return [weight / sum(weights) for weight in weights]


def test_lengths_are_poisson_truncated() -> None:
    assert span_length_probabilities(GLM_130B) == pytest.approx(poisson(3.0, 39))
    assert span_length_probabilities(MaskConfig(span_mean_tokens=2000.0))[-1] > 0.97  # no underflow


@pytest.mark.parametrize("slot_tokens", [64, 128, 512])
def test_drawn_spans_follow_the_law(slot_tokens: int) -> None:
    rng = np.random.default_rng(slot_tokens)
    num_tokens, rows = piece_tokens(slot_tokens, GLM_130B), 3000
    first_lengths: Counter[int] = Counter()
    short, covered = 0, []
    for _ in range(rows):
        spans = draw_spans(rng, num_tokens=num_tokens, slot_tokens=slot_tokens, mask=GLM_130B, single=True)
        first_lengths[min(spans[0][1] - spans[0][0], 9)] += 1
        spans = draw_spans(rng, num_tokens=num_tokens, slot_tokens=slot_tokens, mask=GLM_130B)
        lengths = [end - start for start, end in spans]
        covered.append(sum(lengths) / num_tokens)
        short += sum(lengths) < GLM_130B.coverage * num_tokens
        assert sum(lengths) - max(lengths) < GLM_130B.coverage * num_tokens  # no span more than needed
        assert num_tokens + 2 * len(spans) <= slot_tokens
    law = poisson(3.0, 39)
    expected = rows * np.array([*law[:8], sum(law[8:])])
    counted = np.array([first_lengths[length] for length in range(1, 10)])
    assert ((counted - expected) ** 2 / expected).sum() < 30  # 8 degrees of freedom: a chance of 2e-4
    assert short / rows < 0.01
    assert 0.15 <= np.mean(covered) < 0.15 + 3.2 / num_tokens  # the last span goes over by less than a mean length


@pytest.mark.parametrize("slot_tokens", [44, 64, 128, 512, 2048])
def test_the_piece_is_the_longest_with_room(slot_tokens: int) -> None:
    """The chance of being short, by simulation, is what the derivation allows; at the next length it is more."""
    rng = np.random.default_rng(0)
    drawn = np.cumsum(rng.choice(np.arange(1, 40), p=poisson(3.0, 39), size=(20_000, slot_tokens // 3)), axis=1)

    def chance(num_tokens: int) -> float:
        most = most_spans(slot_tokens, num_tokens)
        return float(np.mean(drawn[:, most - 1] < GLM_130B.coverage * num_tokens)) if most else 1.0

    num_tokens = piece_tokens(slot_tokens, GLM_130B)
    assert 0.75 * slot_tokens < num_tokens < slot_tokens
    assert chance(num_tokens) < 2 * SHORT_OF_ROOM
    assert chance(num_tokens + 4) > SHORT_OF_ROOM


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.integers(1, 200),
    st.integers(0, 100),
    st.floats(0.01, 0.5),
    st.floats(0.2, 30),
    st.integers(1, 60),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_spans_are_apart_inside_and_fit(
    num_tokens: int, room: int, coverage: float, mean: float, maximum: int, single: bool, seed: int
) -> None:
    mask = MaskConfig(coverage=coverage, span_mean_tokens=mean, span_maximum_tokens=maximum)
    slot_tokens = num_tokens + 2 + room
    spans = draw_spans(
        np.random.default_rng(seed), num_tokens=num_tokens, slot_tokens=slot_tokens, mask=mask, single=single
    )
    assert 1 <= len(spans) <= (1 if single else max(1, most_spans(slot_tokens, num_tokens)))
    assert all(1 <= end - start <= maximum for start, end in spans)
    edges = [-1, *(edge for span in spans for edge in span), num_tokens + 1]
    gaps = [after - before for before, after in zip(edges[::2], edges[1::2], strict=True)]
    assert min(gaps) >= 1
    assert num_tokens + 2 * len(spans) <= slot_tokens


def test_every_placement_is_equally_likely() -> None:
    """Spans of one token, two of them in seven: 15 placements without contact."""
    mask = MaskConfig(coverage=0.25, span_maximum_tokens=1)
    rng, draws = np.random.default_rng(5), 6000
    placements = Counter(tuple(draw_spans(rng, num_tokens=7, slot_tokens=20, mask=mask)) for _ in range(draws))
    assert len(placements) == 15
    expected = draws / 15
    assert sum((count - expected) ** 2 / expected for count in placements.values()) < 38  # 14 degrees: 5e-4


def test_no_place_of_a_text_is_preferred() -> None:
    rng, rows = np.random.default_rng(6), 8000
    blanked = np.zeros(100)
    for _ in range(rows):
        for start, end in draw_spans(rng, num_tokens=100, slot_tokens=200, mask=GLM_130B):
            blanked[start:end] += 1
    thirds = blanked[5:35].mean() / rows, blanked[35:65].mean() / rows, blanked[65:95].mean() / rows
    assert max(thirds) - min(thirds) < 0.01  # five standard errors
    assert (blanked / rows).min() > 0.05  # a span cannot reach over the edge: the very ends are blanked less
