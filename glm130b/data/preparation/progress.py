"""How far ``glm130b prepare`` is."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30


@contextmanager
def show_progress(*, total_bytes: int, done_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left where somebody looks at it, else a line now and then, on standard error.

    Gives what is to be told the number of bytes that are done. ``done_bytes`` were done by an earlier run and do not
    count for the rate.
    """
    bar: tqdm[NoReturn] = tqdm(  # iterates over nothing
        total=total_bytes,
        initial=done_bytes,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        desc="tokenising",
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
        leave=False,
    )
    with bar:
        lines = _Lines(total_bytes, done_bytes)

        def advance(num_bytes: int) -> None:
            lines.advance(num_bytes) if bar.disable else bar.update(num_bytes)

        yield advance


class _Lines:
    """For a log file."""

    def __init__(self, total_bytes: int, done_bytes: int) -> None:
        self._total, self._done, self._before = total_bytes, done_bytes, done_bytes
        self._started = self._shown = time.monotonic()

    def advance(self, num_bytes: int) -> None:
        self._done += num_bytes
        now = time.monotonic()
        if now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            rate = (self._done - self._before) / (now - self._started)
            left = (self._total - self._done) / rate if rate else float("inf")
            print(
                f"tokenising: {self._done / 1e6:.0f} of {self._total / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s, "
                f"{left / 60:.0f} minutes left",
                file=sys.stderr,
                flush=True,
            )
