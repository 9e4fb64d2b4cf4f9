"""How long a run still takes."""

import time
from collections import deque
from collections.abc import Callable

from glm130b.training.metrics import Record

_WINDOW_STEPS = 50


class TimeLeft:
    """Counts in samples, since a step's size changes while the batch grows.

    The speed is that of the newest steps. What a run does between its steps, evaluations and saves, comes in bursts,
    so it is spread over the whole run: a step costs as much more as all steps so far did.
    """

    def __init__(self, total_samples: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` counts seconds."""
        self._total_samples = total_samples
        self._clock = clock
        self._newest: deque[tuple[float, float]] = deque(maxlen=_WINDOW_STEPS)
        """Rows and seconds of a step."""
        self._started: float | None = None
        self._step_seconds = 0.0
        self.samples_per_second = 0.0
        """With what happens between the steps; 0 before the first."""
        self.seconds: float | None = None
        """Until the end of the run; None before the first step."""

    def note(self, record: Record) -> None:
        """A step of training has just ended."""
        rows, seconds = record.values.get("batch_size", 0.0), record.values.get("seconds", 0.0)
        if not rows or not seconds:
            return
        if self._started is None:
            self._started = self._clock() - seconds
        self._newest.append((rows, seconds))
        self._step_seconds += seconds
        between_steps = max(1.0, (self._clock() - self._started) / self._step_seconds)
        newest_rows, newest_seconds = map(sum, zip(*self._newest, strict=True))
        self.samples_per_second = newest_rows / newest_seconds / between_steps
        self.seconds = max(0, self._total_samples - record.samples) / self.samples_per_second


def in_words(seconds: float) -> str:
    """The two largest units: "3 d 4 h", "2 h 15 min", "8 min", "40 s"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
