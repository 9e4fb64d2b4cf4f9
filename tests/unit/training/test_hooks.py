"""The hook that hands on each step's record."""

from glm130b.training.hooks import RecordSteps
from glm130b.training.metrics import Record, Recorder
from glm130b.training.progress import Progress


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self) -> None:
        raise AssertionError("a hook does not close the sinks")


def test_each_step_is_recorded_once() -> None:
    kept = Kept()
    hook = RecordSteps(Recorder([kept]))
    records = [Record(kind="train", step=step, samples=8 * step, values={"loss": 1.0}) for step in (1, 2)]
    hook.before_training(Progress())
    for record in records:
        hook.after_step(Progress(record.step, record.samples), record)
    assert kept.records == records
