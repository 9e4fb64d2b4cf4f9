"""A bar below the lines of a terminal: how far the run is, how fast, how long still."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

from glm130b.training.metrics import Record
from glm130b.training.sinks.time_left import TimeLeft, in_words


class ProgressBar:
    """Appears with the first step and goes with ``close``; lines are printed above it within ``above``."""

    def __init__(self, stream: TextIO, *, total_samples: int, time_left: TimeLeft | None = None) -> None:
        self._stream = stream
        self._total_samples = total_samples
        self._time_left = time_left or TimeLeft(total_samples)
        self._bar: _Bar | None = None
        tqdm.set_lock(threading.RLock())  # tqdm's own is shared between processes, and starts one to look after it

    def show(self, record: Record) -> None:
        """How far the run is after a step of training."""
        self._time_left.note(record)
        if self._bar is None:
            self._bar = _bar(self._stream, self._total_samples)
        self._bar.n = min(record.samples, self._total_samples)
        self._bar.set_description_str(self._in_words(record.samples), refresh=False)
        self._bar.refresh()

    @contextmanager
    def above(self) -> Iterator[None]:
        """The bar is away within."""
        with tqdm.external_write_mode(file=self._stream):
            yield

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _in_words(self, samples: int) -> str:
        left, speed = self._time_left.seconds, self._time_left.samples_per_second
        words = [f"{samples:,} of {self._total_samples:,} samples"]
        if left is not None:
            words += [f"{speed:,.{0 if speed >= 100 else 1}f}/s", f"{in_words(left)} left"]
        return ", ".join(words)


class _Bar(tqdm):  # type: ignore[type-arg]  # it counts, and iterates over nothing
    """Drawn when it is told to, so that tqdm needs no thread to watch it."""

    monitor_interval = 0


def _bar(stream: TextIO, total: int) -> _Bar:
    options: dict[str, Any] = {"dynamic_ncols": True, "leave": False, "bar_format": "{percentage:3.0f}% {bar} {desc}"}
    return _Bar(total=total, file=stream, **options)
