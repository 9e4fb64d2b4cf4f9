"""A column: the same answers as an array in memory, from few reads and with few numbers kept."""

import os
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glm130b.data.corpus import column as module
from glm130b.data.corpus.column import Column

NUMBERS = np.sort(np.random.default_rng(0).integers(0, 150, 200))
"""With numbers that stand several times and gaps between others."""


@pytest.fixture
def column(tmp_path: Path) -> Iterator[Column]:
    (tmp_path / "c").write_bytes(b"abc" + NUMBERS.tobytes() + b"xyz")
    descriptor = os.open(tmp_path / "c", os.O_RDONLY)
    yield Column(tmp_path / "c", descriptor, dtype=NUMBERS.dtype, offset=3, count=len(NUMBERS))
    os.close(descriptor)


@pytest.mark.parametrize(("leaf", "levels"), [(2048, 15), (1, 15), (3, 2), (1, 0)])
def test_the_search_is_that_of_a_list(column: Column, leaf: int, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAF_ENTRIES", leaf)
    monkeypatch.setattr(module, "_CACHED_LEVELS", levels)
    for _ in range(2):  # without and with what the first time kept
        for value in range(-1, 152):
            assert column.search(value) == bisect_left(NUMBERS, value)
    assert len(column._upper) < 2**levels


def test_any_part_is_read(column: Column) -> None:
    for first, stop in ((0, 200), (7, 9), (199, 200), (5, 5)):
        assert column.read(first, stop).tolist() == NUMBERS[first:stop].tolist()


def test_a_file_that_became_shorter_is_an_error(column: Column, tmp_path: Path) -> None:
    os.truncate(tmp_path / "c", 40)
    with pytest.raises(OSError, match=r"c: has no 80 bytes from byte 3 on"):
        column.read(0, 10)


def test_an_empty_column_has_no_place(tmp_path: Path) -> None:
    (tmp_path / "c").touch()
    descriptor = os.open(tmp_path / "c", os.O_RDONLY)
    assert Column(tmp_path / "c", descriptor, dtype=np.dtype(np.int64), offset=0, count=0).search(5) == 0
    os.close(descriptor)
