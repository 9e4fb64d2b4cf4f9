"""Numbers and lines of a page."""

import pytest

from glm130b.plan.wording import duration, gib, long_duration, millions, paragraph, short, shown, span


@pytest.mark.parametrize(
    ("number", "text"),
    [(12, "12 "), (819_200, "819,200 "), (1_544_000_000_000, "1.544 T"), (450e9, "450 G"), (6.862e18, "6.862 E")],
)
def test_short(number: float, text: str) -> None:
    assert short(number) == text


def test_units() -> None:
    assert (gib(3 * 2**30), millions(4_087_119_872), span(3, 1), span(3, 4)) == ("3.00", "4,087.12 M", "3", "3-6")
    durations = [duration(number) for number in (0.000298, 0.0123, 2.5, 88.54, 1234.5)]
    assert durations == ["0.298 ms", "0.0123 s", "2.5 s", "88.5 s", "1,234.5 s"]


def test_a_long_duration_is_in_the_unit_of_a_clock() -> None:
    durations = [long_duration(number) for number in (101_800, 7200, 4175, 100, 0.5)]
    assert durations == ["28.3 h", "2.0 h", "69.6 min", "100.0 s", "0.5 s"]


def test_the_middle_is_left_out() -> None:
    assert shown(3, most=4) == [0, 1, 2]
    assert shown(9, most=4) == [0, 1, None, 7, 8]


def test_a_paragraph_never_cuts_a_word_that_can_be_pasted() -> None:
    lines = list(paragraph(" ".join(["parallel.sequence_parallel=true"] * 5)))
    assert all(len(line) <= 80 for line in lines)
    assert all(word == "parallel.sequence_parallel=true" for line in lines for word in line.split())
    assert [len(line) - len(line.lstrip()) for line in lines] == [2, 4, 4]
