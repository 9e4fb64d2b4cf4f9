"""The stateless shuffle is a shuffle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.data.mixing.permutation import Permutation


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(1, 3000), st.integers(0, 10))
def test_every_index_is_met_once(size: int, key: int) -> None:
    order = Permutation(size, key)(np.arange(size))
    assert sorted(order.tolist()) == list(range(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 99_991, 2**16, 2**16 + 1])
def test_corner_sizes(size: int) -> None:
    order = Permutation(size, 1, "text", 0)(np.arange(size))
    assert np.array_equal(np.sort(order), np.arange(size))


@given(st.integers(1, 2**62), st.data())
def test_one_index_alone_goes_where_it_goes_among_all(size: int, data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20))
    permutation = Permutation(size, 5, "text", 2)
    assert [permutation.at(index) for index in indices] == permutation(np.array(indices)).tolist()


def test_sizes_near_the_limit_stay_inside_and_apart() -> None:
    size = 2**62
    indices = np.concatenate((np.arange(1000), np.arange(size - 1000, size)))
    cells = Permutation(size, 3)(indices)
    assert len(set(cells.tolist())) == len(indices)
    assert cells.min() >= 0
    assert cells.max() < size


def test_equal_keys_agree_and_different_keys_differ() -> None:
    indices = np.arange(1000)
    first = Permutation(1000, 1234, "train", "text", 0)(indices)
    assert np.array_equal(first, Permutation(1000, 1234, "train", "text", 0)(indices))
    for other in ((1235, "train", "text", 0), (1234, "train", "code", 0), (1234, "train", "text", 1)):
        # Two unrelated orders agree in one place on average; Poisson, so 8 or more has a chance of 1e-5.
        assert np.sum(Permutation(1000, *other)(indices) == first) < 8


def test_an_index_is_equally_likely_to_go_anywhere() -> None:
    size, keys = 12, 3000
    counts = np.zeros((size, size))
    for key in range(keys):
        counts[np.arange(size), Permutation(size, key)(np.arange(size))] += 1
    expected = keys / size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 180  # 121 degrees of freedom: mean 121, 180 has a chance of 4e-4


def test_neighbours_are_torn_apart() -> None:
    order = Permutation(100_000, 9)(np.arange(100_000)).astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert np.mean(np.abs(np.diff(order)) == 1) < 1e-3


@given(st.integers(1, 10**12), st.integers(0, 2**32), st.data())
def test_it_can_be_read_backwards(size: int, key: int, data: st.DataObject) -> None:
    permutation = Permutation(size, key)
    index = data.draw(st.integers(0, size - 1))
    assert permutation.index_of(permutation.at(index)) == index
