"""Caps and weights are exact where they can be, fair where they cannot, and depend on the documents alone."""

from pathlib import Path

import numpy as np
import pytest

from glm130b.data.preparation.inputs import Dataset
from glm130b.data.preparation.selection import Cap, Selection, keyed

RANDOM = np.random.default_rng(0).integers(0, 2**64, (20_000, 2), dtype=np.uint64)


def dataset(*, name: str = "a", weight: float = 1.0) -> Dataset:
    return Dataset(name=name, files=(Path("a"),), weight=weight)


@pytest.mark.parametrize("cap", [1, 10, 9_999, 19_999])
def test_a_cap_keeps_exactly_as_many_and_those_with_the_smallest_keys(cap: int) -> None:
    keys = keyed(RANDOM, "cap", "a")
    found = Cap.find(np.array_split(keys, 7), cap)
    assert found
    kept = np.concatenate([found.take(part) for part in np.array_split(keys, 13)])
    assert kept.sum() == cap
    assert keys[kept].max() < keys[~kept].min()


def test_equal_keys_share_what_is_left_first_come_first_served() -> None:
    keys = np.array([5, 3, 5, 9, 5, 5], np.uint64)
    found = Cap.find([keys], 3)
    assert found
    taken = [found.take(part).tolist() for part in (keys[:3], keys[3:5], keys[5:])]
    assert taken == [[True, True, True], [False, False], [False]]


def test_a_cap_that_is_not_reached_is_none() -> None:
    assert Cap.find([keyed(RANDOM, "cap", "a")], len(RANDOM)) is None


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0, 1.75, 3.0])
def test_a_weight_is_how_often_a_document_is_written(weight: float) -> None:
    copies = Selection(duplicates=None, caps={}).copies(RANDOM, first=0, dataset=dataset(weight=weight))
    assert set(copies.tolist()) == {int(weight), -int(-weight // 1)}
    sigma = (len(RANDOM) * (weight % 1) * (1 - weight % 1)) ** 0.5
    assert abs(copies.sum() - weight * len(RANDOM)) <= 4 * sigma


def test_keys_of_different_purposes_are_unrelated() -> None:
    ours, theirs = keyed(RANDOM, "weight", "a") / 2**64, keyed(RANDOM, "weight", "b") / 2**64
    assert abs(np.corrcoef(ours, theirs)[0, 1]) < 0.03
    assert abs(ours.mean() - 0.5) < 0.01
    assert np.array_equal(keyed(RANDOM[5:], "weight", "a"), keyed(RANDOM, "weight", "a")[5:])
