"""Duplicates by hash, across all buckets and ranges."""

from pathlib import Path

import numpy as np
import pytest

from glm130b.data.preparation import duplicates as module
from glm130b.data.preparation.duplicates import Duplicates


@pytest.mark.parametrize(("bucket", "interval"), [(1 << 20, 1 << 22), (7, 10), (1, 1)])
def test_all_but_the_first_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: int, interval: int
) -> None:
    monkeypatch.setattr(module, "_BUCKET_ENTRIES", bucket)
    monkeypatch.setattr(module, "_RANGE_DOCUMENTS", interval)
    generator = np.random.default_rng(0)
    contents = generator.integers(0, 2**64, (40, 2), dtype=np.uint64)[generator.integers(0, 40, 100)]
    contents[:50:9, 0] = contents[0, 0]  # half of the hash is no duplicate
    blocks = [contents[:30], contents[30:30], contents[30:31], contents[31:]]
    found = Duplicates(blocks, num_documents=100, folder=tmp_path)
    seen: set[tuple[int, int]] = set()
    expected = []
    for low, high in contents.tolist():
        expected.append((low, high) in seen)
        seen.add((low, high))
    for size in (1, 7, 100):
        parts = [found.among(first, min(size, 100 - first)) for first in range(0, 100, size)]
        assert np.concatenate(parts).tolist() == expected
    assert 20 < sum(expected) < 90


def test_of_no_documents_none_is_one(tmp_path: Path) -> None:
    assert Duplicates([], num_documents=0, folder=tmp_path).among(0, 0).tolist() == []
