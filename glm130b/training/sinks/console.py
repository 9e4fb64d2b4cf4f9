"""The console: one aligned line a step, each event, and on a terminal a progress bar below."""

import sys
import threading
from contextlib import nullcontext
from typing import TextIO

from glm130b.training.journal import Event
from glm130b.training.metrics import Record
from glm130b.training.sinks.progress_bar import ProgressBar
from glm130b.training.sinks.recorder import complain

_COLUMNS = (
    ("loss", "loss", 8, ".4f"),
    ("mask", "loss/mask", 8, ".4f"),
    ("smask", "loss/smask", 8, ".4f"),
    ("gmask", "loss/gmask", 8, ".4f"),
    ("instr", "loss/instruction", 8, ".4f"),
    ("gradnorm", "gradient_norm", 9, ".4f"),
    ("lr", "learning_rate", 8, ".1e"),
    ("batch", "batch_size", 7, ".0f"),
    ("tok/s", "tokens_per_second", 9, ",.0f"),
)


class Console:
    """One aligned line a step, within 80 columns; an objective without rows in the step shows a dash.

    It prints on the thread that trains, so that its lines stand in order with whatever else is printed: a stream that
    nobody reads, such as a stopped pager, stops the training.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        total_samples: int | None = None,
        has_smask: bool = False,
        header_every: int = 25,
    ) -> None:
        """``stream`` is stdout unless given. With ``total_samples``, the length of the run, a terminal gets a bar;
        ``has_smask``: the run has rows of that objective, and they a column."""
        self._stream = stream or sys.stdout
        self._header_every = header_every
        self._lines = 0
        self._columns = _COLUMNS if has_smask else tuple(column for column in _COLUMNS if column[0] != "smask")
        self._bar: ProgressBar | None = None
        if total_samples and self._stream.isatty():
            self._bar = ProgressBar(self._stream, total_samples=total_samples)
        self._speaking = threading.RLock()

    def begin(self, step: int) -> None:
        """What has been printed stays."""

    def write(self, record: Record) -> None:
        if self._lines % self._header_every == 0:
            self._print(f"{'step':>7}" + "".join(f"{title:>{width}}" for title, _, width, _ in self._columns))
        self._lines += 1
        label = "valid" if record.kind == "validation" else str(record.step)
        self._print(f"{label:>7}" + "".join(self._cell(record, *column[1:]) for column in self._columns).rstrip())
        if self._bar and record.kind == "train":
            with self._speaking:
                self._bar.show(record)

    def tell(self, event: Event) -> None:
        self._print(f"glm130b: {event}")

    def complain(self, text: str) -> None:
        """Of another sink, on stderr; from any thread."""
        with self._speaking, self._bar.above() if self._bar else nullcontext():
            complain(text)

    def close(self) -> None:
        if self._bar:
            self._bar.close()
        self._stream.flush()

    def _print(self, line: str) -> None:
        with self._speaking, self._bar.above() if self._bar else nullcontext():
            print(line, file=self._stream, flush=True)

    @staticmethod
    def _cell(record: Record, name: str, width: int, form: str) -> str:
        if name not in record.values:
            return f"{'-' if name.startswith('loss') else '':>{width}}"
        text = f"{record.values[name]:{form}}"
        return f"{text if len(text) < width else format(record.values[name], '.1e'):>{width}}"
