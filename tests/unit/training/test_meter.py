"""Who was slowest. The meter at work is in tests/dist/test_step_measurements.py."""

from glm130b.training.meter import rank_times, slowest


def test_of_an_even_number_of_ranks_the_median_lies_in_the_middle() -> None:
    assert rank_times((3.0, 1.0, 8.0, 2.0)) == {
        "rank_seconds/min": 1.0,
        "rank_seconds/median": 2.5,
        "rank_seconds/max": 8.0,
        "slowest_rank": 2,
    }


def test_of_equals_the_first_is_the_slowest() -> None:
    assert slowest((1.0, 2.0, 2.0)) == 1
