"""The loop: where it stops, and when it calls whom."""

from typing import Any

from glm130b.training.loop import train
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress


class Stepper:
    """Steps of four rows that only count."""

    def __init__(self, calls: list[str], skipped: range) -> None:
        self._calls = calls
        self._skipped = skipped

    def past_skipped_steps(self, progress: Progress) -> Progress:
        while progress.step in self._skipped:
            progress = progress.after_skipped_step(4)
        return progress

    def step(self, progress: Progress) -> tuple[Progress, Record]:
        after = progress.after_step(4, applied=True)
        self._calls.append(f"step {after.step}")
        return after, Record(kind="train", step=after.step, samples=after.samples, values={})


class Hook:
    """Writes down when it was called, and with what."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self._name = name
        self._calls = calls

    def before_training(self, progress: Progress) -> None:
        self._calls.append(f"{self._name} before {progress.step}")

    def after_step(self, progress: Progress, record: Record) -> None:
        assert (record.step, record.samples) == (progress.step, progress.samples)
        self._calls.append(f"{self._name} after {progress.step}")


def run(start: Progress, train_samples: int, skipped: range = range(0)) -> tuple[Progress, list[str]]:
    calls: list[str] = []
    stepper: Any = Stepper(calls, skipped)
    hooks = [Hook("a", calls), Hook("b", calls)]
    return train(stepper, start, train_samples=train_samples, hooks=hooks), calls


def test_hooks_run_in_the_order_given_around_every_step() -> None:
    end, calls = run(Progress(), train_samples=8)
    assert end == Progress(step=2, samples=8, unclipped_updates=2)
    assert calls == [
        *("a before 0", "b before 0"),
        *("step 1", "a after 1", "b after 1"),
        *("step 2", "a after 2", "b after 2"),
    ]


def test_the_last_step_is_the_first_that_reaches_the_end() -> None:
    assert [run(Progress(), samples)[0].samples for samples in (1, 4, 5, 9)] == [4, 4, 8, 12]


def test_a_resumed_run_goes_on_where_it_stood() -> None:
    end, calls = run(Progress(step=5, samples=20, skipped_updates=1), train_samples=24)
    assert end == Progress(step=6, samples=24, skipped_updates=1, unclipped_updates=1)
    assert calls == ["a before 5", "b before 5", "step 6", "a after 6", "b after 6"]


def test_a_finished_run_trains_nothing() -> None:
    for samples in (8, 9):
        finished = Progress(step=2, samples=samples)
        end, calls = run(finished, train_samples=8)
        assert end == finished
        assert calls == ["a before 2", "b before 2"]


def test_skipped_steps_are_passed_over_wherever_the_run_begins() -> None:
    skipped = range(1, 4)
    end, calls = run(Progress(), 24, skipped)
    assert end == Progress(step=6, samples=24, skipped_steps=3, unclipped_updates=3)
    assert calls[2:] == [f"{what} {n}" for n in (1, 5, 6) for what in ("step", "a after", "b after")]
    for start in (1, 2, 3):  # a run that resumes before, inside and at the end of the range
        _, resumed = run(Progress(start, 4 * start), 24, skipped)
        assert resumed[2:] == calls[5:]
