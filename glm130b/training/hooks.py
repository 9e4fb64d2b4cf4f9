"""What happens around the steps. Every hook runs on every rank, in the order given, so that collectives stay in
step."""

from dataclasses import replace
from typing import Protocol

from glm130b.training.metrics import Record
from glm130b.training.progress import Progress
from glm130b.training.sinks.recorder import Recorder
from glm130b.training.tokens_seen import TokensSeen


class Hook(Protocol):
    """Something done before the first step and after each step."""

    def before_training(self, progress: Progress) -> None: ...

    def after_step(self, progress: Progress, record: Record) -> None: ...


class RecordSteps:
    """Gives each step's record, with the tokens seen by then, to the sinks."""

    def __init__(self, recorder: Recorder, tokens_seen: TokensSeen) -> None:
        self._recorder = recorder
        self._tokens_seen = tokens_seen

    def before_training(self, progress: Progress) -> None:
        """Nothing has been measured yet."""

    def after_step(self, progress: Progress, record: Record) -> None:
        seen = self._tokens_seen.until(progress)
        self._recorder.write(replace(record, values={**record.values, **seen}))
