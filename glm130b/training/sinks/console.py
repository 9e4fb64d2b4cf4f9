"""The console: one aligned line a step."""

import sys
from typing import TextIO

from glm130b.training.metrics import Record

_COLUMNS = (
    ("loss", "loss", 8, ".4f"),
    ("mask", "loss/mask", 8, ".4f"),
    ("gmask", "loss/gmask", 8, ".4f"),
    ("instr", "loss/instruction", 8, ".4f"),
    ("gradnorm", "gradient_norm", 10, ".4f"),
    ("lr", "learning_rate", 9, ".1e"),
    ("batch", "batch_size", 8, ".0f"),
    ("tok/s", "tokens_per_second", 9, ",.0f"),
)


class Console:
    """One aligned line a step, within 80 columns; an objective without rows in the step shows a dash."""

    def __init__(self, stream: TextIO = sys.stdout, header_every: int = 25) -> None:
        self._stream = stream
        self._header_every = header_every
        self._lines = 0

    def write(self, record: Record) -> None:
        if self._lines % self._header_every == 0:
            self._print(f"{'step':>8}" + "".join(f"{title:>{width}}" for title, _, width, _ in _COLUMNS))
        self._lines += 1
        label = "valid" if record.kind == "validation" else str(record.step)
        self._print(f"{label:>8}" + "".join(self._cell(record, *column[1:]) for column in _COLUMNS).rstrip())

    def close(self) -> None:
        self._stream.flush()

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    @staticmethod
    def _cell(record: Record, name: str, width: int, form: str) -> str:
        if name not in record.values:
            return f"{'-' if name.startswith('loss') else '':>{width}}"
        text = f"{record.values[name]:{form}}"
        return f"{text if len(text) < width else format(record.values[name], '.1e'):>{width}}"
