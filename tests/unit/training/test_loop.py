"""The loop: where it stops, and when it calls whom."""

from typing import Any

from glm130b.training.loop import train
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress


class Stepper:
    """Steps of four rows that only count."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

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


def run(start: Progress, train_samples: int) -> tuple[Progress, list[str]]:
    calls: list[str] = []
    stepper: Any = Stepper(calls)
    hooks = [Hook("a", calls), Hook("b", calls)]
    return train(stepper, start, train_samples=train_samples, hooks=hooks), calls


def test_hooks_run_in_the_order_given_around_every_step() -> None:
    end, calls = run(Progress(), train_samples=8)
    assert end == Progress(step=2, samples=8)
    assert calls == [
        *("a before 0", "b before 0"),
        *("step 1", "a after 1", "b after 1"),
        *("step 2", "a after 2", "b after 2"),
    ]


def test_the_last_step_is_the_first_that_reaches_the_end() -> None:
    assert [run(Progress(), samples)[0].samples for samples in (1, 4, 5, 9)] == [4, 4, 8, 12]


def test_a_resumed_run_goes_on_where_it_stood() -> None:
    end, calls = run(Progress(step=5, samples=20, skipped_updates=1), train_samples=24)
    assert end == Progress(step=6, samples=24, skipped_updates=1)
    assert calls == ["a before 5", "b before 5", "step 6", "a after 6", "b after 6"]


def test_a_finished_run_trains_nothing() -> None:
    for samples in (8, 9):
        finished = Progress(step=2, samples=samples)
        end, calls = run(finished, train_samples=8)
        assert end == finished
        assert calls == ["a before 2", "b before 2"]
