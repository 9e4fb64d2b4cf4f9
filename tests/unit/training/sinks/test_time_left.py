"""How long a run still takes: what a person would say who looks at the clock."""

import pytest

from glm130b.training.metrics import Record
from glm130b.training.sinks.time_left import TimeLeft, in_words


class Run:
    """A run on a clock of its own."""

    def __init__(self, total_samples: int) -> None:
        self.now = 1000.0
        self.samples = 0
        self.time_left = TimeLeft(total_samples, clock=lambda: self.now)

    def step(self, batch_size: int, seconds: float, *, then: float = 0.0) -> None:
        """One step, and ``then`` as many seconds for a save or an evaluation."""
        self.now += seconds
        self.samples += batch_size
        values = {"batch_size": float(batch_size), "seconds": seconds}
        self.time_left.note(Record(kind="train", step=1, samples=self.samples, values=values))
        self.now += then


def test_nothing_is_known_before_the_first_step() -> None:
    assert Run(100).time_left.seconds is None


def test_an_even_run() -> None:
    run = Run(1000)
    for _ in range(10):
        run.step(8, 2.0)
    assert run.time_left.samples_per_second == pytest.approx(4.0)
    assert run.time_left.seconds == pytest.approx((1000 - 80) / 4)


def test_a_batch_that_grows_is_measured_at_its_new_size() -> None:
    run = Run(10_000)
    for size in (4, 8, 16):
        for _ in range(50):
            run.step(size, 1.0 + size / 8)  # a larger batch has less overhead
    assert run.time_left.seconds == pytest.approx((10_000 - run.samples) / (16 / 3.0))


def test_saves_are_spread_over_the_run() -> None:
    """A save costs as much as its interval: the answer is the same before and after it, within the newest save."""
    run = Run(100_000)
    for step in range(1, 401):
        run.step(8, 1.0, then=25.0 if step % 100 == 0 else 0.0)
    before = run.time_left.seconds
    run.step(8, 1.0)
    assert before is not None
    assert run.time_left.seconds == pytest.approx(before, rel=0.06)
    assert run.time_left.seconds == pytest.approx((100_000 - run.samples) / 8 * 1.25, rel=0.02)


def test_a_rewind_takes_the_samples_back() -> None:
    run = Run(1000)
    for _ in range(50):
        run.step(8, 1.0)
    run.samples = 80
    run.step(8, 1.0)
    assert run.time_left.seconds == pytest.approx((1000 - 88) / 8)


def test_the_end_is_no_time_away() -> None:
    run = Run(8)
    run.step(16, 1.0)
    assert run.time_left.seconds == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3590, "1 h 0 min"), (8100, "2 h 15 min"), (300_000, "3 d 11 h")],
)
def test_two_units_are_enough(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
