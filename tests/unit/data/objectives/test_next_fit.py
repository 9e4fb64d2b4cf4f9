"""Next-fit agrees with the plain loop over items, however they come."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm130b.data.objectives.next_fit import next_fit


def plainly(costs: list[int], capacity: int) -> list[list[int]]:
    """The bins as lists of the items that cost something."""
    bins: list[list[int]] = []
    used = capacity
    for item, cost in enumerate(costs):
        if cost and used + cost > capacity:
            bins.append([])
            used = 0
        if cost:
            bins[-1].append(item)
            used += cost
    return bins


@given(st.data(), st.integers(1, 20))
def test_bins_are_those_of_the_plain_loop(data: st.DataObject, capacity: int) -> None:
    costs = data.draw(st.lists(st.integers(0, capacity), max_size=60))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(costs)), max_size=5)))
    pieces = [np.array(piece, np.int64) for piece in np.split(np.array(costs, np.int64), cuts)]
    bounds = next_fit(pieces, capacity=capacity).tolist()
    bins = [[item for item in range(*pair) if costs[item]] for pair in pairwise(bounds)]
    assert bins == plainly(costs, capacity)
    assert bounds[-1] == len(costs)


def test_equal_items_fill_their_bins() -> None:
    assert next_fit([np.full(5, 512), np.full(5, 512)], capacity=2048).tolist() == [0, 4, 8, 10]


def test_an_item_larger_than_a_bin_is_an_error() -> None:
    with pytest.raises(ValueError, match="an item costs 5, more than the 4 of a bin"):
        next_fit([np.array([1, 5, 1])], capacity=4)
