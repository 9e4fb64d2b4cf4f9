"""The hook that hands on each step's record."""

from typing import Any

from glm130b.training.hooks import RecordSteps
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress
from glm130b.training.sinks.recorder import Recorder


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self) -> None:
        raise AssertionError("a hook does not close the sinks")


class Counted:
    """Ten tokens a sample."""

    def until(self, progress: Progress) -> dict[str, float]:
        return {"tokens/mask": 10.0 * progress.samples}


def test_each_step_is_recorded_once_with_the_tokens_seen_by_then() -> None:
    kept = Kept()
    tokens_seen: Any = Counted()
    hook = RecordSteps(Recorder([kept]), tokens_seen)
    records = [Record(kind="train", step=step, samples=8 * step, values={"loss": 1.0}) for step in (1, 2)]
    hook.before_training(Progress())
    for record in records:
        hook.after_step(Progress(record.step, record.samples), record)
    assert [record.values for record in kept.records] == [
        {"loss": 1.0, "tokens/mask": 80.0},
        {"loss": 1.0, "tokens/mask": 160.0},
    ]
    assert [(record.kind, record.step, record.samples) for record in kept.records] == [
        ("train", 1, 8),
        ("train", 2, 16),
    ]
