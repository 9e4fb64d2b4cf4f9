"""Blanks follow their law, in every piece as if it were alone, and what they need is known beforehand."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm130b.config.sections import MaskConfig
from glm130b.data.arrays import Int64Array
from glm130b.data.objectives.spans import (
    SHORT_OF_ROOM,
    Spans,
    draw_spans,
    most_spans,
    span_length_probabilities,
    uniform,
)
from tests.unit.data.objectives.rows import chi_square, chi_square_limit

GLM_130B = MaskConfig()
UNLIMITED = 1000


def poisson(mean: float, maximum: int) -> list[float]:
    weights = [math.exp(-mean) * mean**n / math.factorial(n) for n in range(1, maximum + 1)]
    return [weight / sum(weights) for weight in weights]


def drawn(num_tokens: list[int] | Int64Array, *, most: int | Int64Array, mask: MaskConfig, seed: int = 0) -> Spans:
    tokens = np.asarray(num_tokens)
    limits = np.broadcast_to(np.asarray(most), tokens.shape)
    return draw_spans(np.random.default_rng(seed), num_tokens=tokens, most=limits, mask=mask)


def of_each_piece(spans: Spans, num_pieces: int) -> list[list[tuple[int, int]]]:
    """Half-open spans by piece."""
    pieces: list[list[tuple[int, int]]] = [[] for _ in range(num_pieces)]
    for piece, start, length in zip(*(part.tolist() for part in spans), strict=True):
        pieces[piece].append((start, start + length))
    return pieces


def test_lengths_are_poisson_truncated() -> None:
    assert span_length_probabilities(GLM_130B) == pytest.approx(poisson(3.0, 39))
    assert span_length_probabilities(MaskConfig(span_mean_tokens=2000.0))[-1] > 0.97  # no underflow


def test_single_spans_follow_the_law() -> None:
    spans = drawn([100] * 20_000, most=1, mask=GLM_130B)
    assert spans.piece.tolist() == list(range(20_000))
    law = poisson(3.0, 39)
    counted = [np.sum(spans.length == length) for length in range(1, 9)] + [np.sum(spans.length > 8)]
    assert chi_square(counted, [*law[:8], sum(law[8:])]) < chi_square_limit(8)


def test_lengths_are_drawn_until_the_share_is_covered() -> None:
    """The law of how many spans that takes, by a simulation of one length after the other."""
    num_tokens, draws = 100, 10_000
    rng = np.random.default_rng(1)
    one_by_one = np.cumsum(rng.choice(np.arange(1, 40), p=poisson(3.0, 39), size=(60_000, 15)), axis=1)
    expected = np.bincount(np.sum(one_by_one < 15, axis=1) + 1, minlength=10)
    counts = np.bincount(np.bincount(drawn([num_tokens] * draws, most=UNLIMITED, mask=GLM_130B).piece), minlength=10)
    few, many = slice(0, 4), slice(7, None)
    counted = [counts[few].sum(), *counts[4:7], counts[many].sum()]
    assert chi_square(counted, [expected[few].sum(), *expected[4:7], expected[many].sum()]) < chi_square_limit(4)


def test_pieces_are_covered_but_for_the_rare_want_of_room() -> None:
    """Short and long ones, side by side."""
    num_tokens = np.array([20, 56, 450] * 2500)
    spans = drawn(num_tokens, most=most_spans(450, GLM_130B)[num_tokens], mask=GLM_130B)
    pieces = [[end - start for start, end in piece] for piece in of_each_piece(spans, len(num_tokens))]
    for kind, length in enumerate((20, 56, 450)):
        due, lengths = 0.15 * length, pieces[kind::3]
        covered = np.array([sum(piece) for piece in lengths])
        assert np.mean(covered < due) < 3 * SHORT_OF_ROOM
        assert all(sum(piece) - max(piece) < due for piece in lengths)  # no span more than needed
        assert due <= covered.mean() < due + 3.2  # the last span goes over by less than a mean length


def test_the_span_that_completes_the_coverage_stands_anywhere() -> None:
    """It is longer than others; first and last of three spans are equally long all the same."""
    pieces = of_each_piece(drawn([60] * 8000, most=UNLIMITED, mask=GLM_130B), 8000)
    firsts, lasts = zip(
        *((piece[0][1] - piece[0][0], piece[2][1] - piece[2][0]) for piece in pieces if len(piece) == 3), strict=True
    )
    assert len(firsts) > 2000
    assert abs(np.mean(firsts) - np.mean(lasts)) < 0.19  # four standard errors


@pytest.mark.parametrize("longest", [1, 44, 128, 512])
def test_most_spans_leave_few_pieces_short(longest: int) -> None:
    """The chance of being short, by simulation, is what the derivation allows; with a span less it is more."""
    rng = np.random.default_rng(0)
    sums = np.cumsum(rng.choice(np.arange(1, 40), p=poisson(3.0, 39), size=(40_000, longest // 3 + 2)), axis=1)
    most = most_spans(longest, GLM_130B)
    assert len(most) == longest + 1
    assert (np.diff(most) >= 0).all()
    for num_tokens in range(1, longest + 1, 1 + longest // 20):
        limit, due = int(most[num_tokens]), 0.15 * num_tokens
        assert np.mean(sums[:, limit - 1] < due) < 1.7 * SHORT_OF_ROOM  # five standard errors
        assert limit == 1 or np.mean(sums[:, limit - 2] < due) > 0.4 * SHORT_OF_ROOM


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 60)), min_size=1, max_size=8),
    st.floats(0.01, 0.5),
    st.floats(0.2, 30),
    st.integers(1, 60),
    st.integers(0, 2**32),
)
def test_spans_are_apart_and_inside(
    pieces: list[tuple[int, int]], coverage: float, mean: float, maximum: int, seed: int
) -> None:
    mask = MaskConfig(coverage=coverage, span_mean_tokens=mean, span_maximum_tokens=maximum)
    num_tokens, most = np.array(pieces).T
    spans = of_each_piece(drawn(num_tokens, most=most, mask=mask, seed=seed), len(pieces))
    for (length, limit), piece in zip(pieces, spans, strict=True):
        assert 1 <= len(piece) <= limit
        assert all(1 <= end - start <= maximum for start, end in piece)
        edges = [-1, *(edge for span in piece for edge in span), length + 1]
        gaps = [after - before for before, after in zip(edges[::2], edges[1::2], strict=True)]
        assert min(gaps) >= 1


def test_a_span_without_a_place_is_not_drawn() -> None:
    """Of three tokens one may be blanked and two more be due, but there is no place for them with a token between."""
    mask = MaskConfig(coverage=0.5, span_mean_tokens=3.0)
    num_tokens = [3, 4, 5, 6] * 500
    for length, piece in zip(num_tokens, of_each_piece(drawn(num_tokens, most=9, mask=mask), 2000), strict=True):
        assert piece[-1][1] <= length
        assert sum(end - start + 1 for start, end in piece) <= length + 1


def test_every_placement_is_equally_likely() -> None:
    """Two spans of one token in seven have 15 placements without contact, in six 10; drawn side by side."""
    mask = MaskConfig(coverage=0.25, span_maximum_tokens=1)
    pieces = of_each_piece(drawn([7, 6] * 6000, most=20, mask=mask), 12_000)
    for which, placements in ((pieces[::2], 15), (pieces[1::2], 10)):
        counts = Counter(map(tuple, which))
        assert len(counts) == placements
        assert chi_square(list(counts.values()), [1] * placements) < chi_square_limit(placements - 1)


def test_lengths_and_places_are_independent() -> None:
    """Lengths 1 and 2 in six tokens: six placements of (1, 2), six of (2, 1)."""
    mask = MaskConfig(coverage=0.4, span_maximum_tokens=2, span_mean_tokens=2.0)
    pieces = of_each_piece(drawn([6] * 12_000, most=UNLIMITED, mask=mask), 12_000)
    counts = Counter(tuple(piece) for piece in pieces if sorted(end - start for start, end in piece) == [1, 2])
    assert len(counts) == 12
    assert chi_square(list(counts.values()), [1] * 12) < chi_square_limit(11)


def test_no_place_of_a_text_is_preferred() -> None:
    rows, blanked = 5000, np.zeros(100)
    for piece in of_each_piece(drawn([100] * rows, most=UNLIMITED, mask=GLM_130B), rows):
        for start, end in piece:
            blanked[start:end] += 1
    thirds = blanked[5:35].mean() / rows, blanked[35:65].mean() / rows, blanked[65:95].mean() / rows
    assert max(thirds) - min(thirds) < 0.0125  # five standard errors
    assert (blanked / rows).min() > 0.05  # a span cannot reach over the edge: the very ends are blanked less


def test_uniform_integers() -> None:
    bounds = np.array([3, 0] * 20_000), np.array([7, 0] * 20_000)
    numbers = uniform(np.random.default_rng(2), *bounds)
    assert not numbers[1::2].any()
    counts = np.bincount(numbers[::2])
    assert counts[:3].tolist() == [0, 0, 0]
    assert len(counts) == 8
    assert chi_square(counts[3:], [1] * 5) < chi_square_limit(4)
