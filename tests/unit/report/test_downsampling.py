"""Fewer points, and every spike among them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm130b.report.downsampling import binned_maximum, evenly, extremes, running_mean, shares


@given(
    st.integers(1, 3000), st.integers(8, 400), st.integers(0, 2999), st.sampled_from([-99.0, 99.0]), st.integers(0, 99)
)
def test_no_spike_is_lost(length: int, most: int, place: int, height: float, seed: int) -> None:
    """A value beyond all others, up or down, is kept; so are the first and the last, and never more than asked."""
    values = np.random.default_rng(seed).normal(size=length)
    values[place % length] = height
    kept = extremes(values, most=most).tolist()
    assert {0, place % length, length - 1} <= set(kept)
    assert kept == sorted(set(kept))
    assert len(kept) <= most


def test_spikes_of_different_stretches_are_all_kept() -> None:
    values = np.zeros(100_000)
    spikes = np.arange(50, 100_000, 400)
    values[spikes] = np.where(np.arange(len(spikes)) % 2, 1.0, -1.0)
    assert set(spikes.tolist()) <= set(extremes(values, most=1000).tolist())


def test_what_is_not_finite_is_left_out() -> None:
    values = np.array([np.nan, 1.0, np.inf, 2.0])
    assert extremes(values, most=100).tolist() == [1, 3]
    assert extremes(np.full(4, np.nan), most=100).tolist() == []


def test_a_running_mean_lags_nothing() -> None:
    ramp = np.arange(1000.0)
    smooth = running_mean(ramp, window=40)
    np.testing.assert_allclose(smooth[:900], ramp[:900])
    constant = running_mean(np.array([2.0, np.inf, 2.0, 2.0]), window=8)
    np.testing.assert_allclose(constant, [2, np.nan, 2, 2])


def test_a_running_mean_quietens() -> None:
    noise = np.random.default_rng(0).normal(size=10_000)
    assert running_mean(noise, window=100).std() < 0.2


def test_a_heat_map_keeps_the_largest_of_each_stretch() -> None:
    values_LT = np.ones((2, 1000), dtype=np.float32)
    values_LT[1, 523] = 50
    values_LT[0, 7], values_LT[0, 900:] = np.inf, np.nan
    maxima, starts = binned_maximum(values_LT, bins=10)
    assert starts.tolist() == list(range(0, 1000, 100))
    assert maxima[1].tolist() == [1, 1, 1, 1, 1, 50, 1, 1, 1, 1]
    assert maxima[0, 0] == 1
    assert np.isnan(maxima[0, 9])
    assert binned_maximum(values_LT[:, :3], bins=10)[0].shape == (2, 3)


def test_shares_are_of_what_was_added() -> None:
    counts_KT = np.cumsum([[3.0, 3, 1, 1, 0], [1, 1, 3, 3, 0]], axis=1)
    parts, ends = shares(counts_KT, most=100)
    assert ends.tolist() == [0, 1, 2, 3]  # nothing grew in the last record
    np.testing.assert_allclose(parts, [[0.75, 0.75, 0.25, 0.25], [0.25, 0.25, 0.75, 0.75]])
    parts, ends = shares(counts_KT[:, :4], most=2)
    assert ends.tolist() == [0, 3]
    np.testing.assert_allclose(parts.sum(axis=0), 1)


@pytest.mark.parametrize(("length", "most"), [(1, 5), (5, 5), (1000, 7)])
def test_even_places_have_both_ends(length: int, most: int) -> None:
    places = evenly(length, most=most)
    assert (places[0], places[-1]) == (0, length - 1)
    assert len(places) == min(length, most)
