"""What happens around the steps. Every hook runs on every rank, in the order given, so that collectives stay in
step."""

from typing import Protocol

from glm130b.training.metrics import Record, Recorder
from glm130b.training.progress import Progress


class Hook(Protocol):
    """Something done before the first step and after each step."""

    def before_training(self, progress: Progress) -> None: ...

    def after_step(self, progress: Progress, record: Record) -> None: ...


class RecordSteps:
    """Gives each step's record to the sinks."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def before_training(self, progress: Progress) -> None:
        """Nothing has been measured yet."""

    def after_step(self, progress: Progress, record: Record) -> None:
        self._recorder.write(record)
