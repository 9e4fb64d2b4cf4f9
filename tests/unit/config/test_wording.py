"""Words that several messages share."""

import pytest

from glm130b.config.wording import rank_spans


@pytest.mark.parametrize(
    ("ranks", "words"),
    [([3], "rank 3"), ([3, 4], "ranks 3-4"), ([0, 2], "ranks 0, 2"), ([0, 1, 2, 5, 7, 8], "ranks 0-2, 5, 7-8")],
)
def test_ranks_in_words(ranks: list[int], words: str) -> None:
    assert rank_spans(ranks) == words
