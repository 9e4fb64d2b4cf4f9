"""Random numbers by purpose."""

import numpy as np

from glm130b.data.mixing.randomness import digest, generator


def test_equal_purposes_agree_and_different_ones_do_not() -> None:
    assert generator(7, "train", "text", 0, 3).random() == generator(7, "train", "text", 0, 3).random()
    purposes = [
        (7, "train", "a", 0, 3),
        (7, "train", "a", 3, 0),
        (8, "train", "a", 0, 3),
        (7, "traina", 0, 3),
        (7, "train", "a", 0),
    ]
    assert len({digest(*purpose) for purpose in purposes}) == len(purposes)


def test_numbers_and_strings_are_told_apart() -> None:
    assert digest(1, 2) != digest("1", 2) != digest(12)


def test_a_digest_has_the_length_that_is_asked_for() -> None:
    assert 2**380 < digest(1, num_bytes=48) < 2**384
    assert digest(1) < 2**128


def test_generators_of_neighbouring_rows_are_unrelated() -> None:
    draws = np.array([generator(0, "train", row).random() for row in range(2000)])
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.08
    assert abs(draws.mean() - 0.5) < 0.03
