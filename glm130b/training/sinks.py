"""Where records go on the first rank: the console and ``metrics.jsonl``."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


class JsonLines:
    """Appends one JSON object a record, so that a killed run keeps what it printed.

    A run that resumes from a checkpoint repeats the steps since then: their older lines are dropped first, all of them
    when it starts anew. A disk that is full or gone ends no run: it is told once, and what could not be written goes
    with the next record that can be.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        self._path = path
        self._pending = b""
        self._is_failing = False
        with self._tolerance():
            if path.exists():
                kept = [line for line in path.read_text().splitlines() if resume_step and _step_of(line) <= resume_step]
                beside = path.with_suffix(".tmp")
                beside.write_text("".join(line + "\n" for line in kept))
                beside.replace(path)

    def write(self, record: Record) -> None:
        self._pending += json.dumps(record.to_dict()).encode() + b"\n"
        self._write_pending()

    def close(self) -> None:
        if self._pending:
            self._write_pending()

    def _write_pending(self) -> None:
        # Opened each time: a handle from before a file server was away may never work again.
        with self._tolerance(), self._path.open("ab", buffering=0) as file:
            while self._pending:
                self._pending = self._pending[file.write(self._pending) :]
            self._is_failing = False

    @contextmanager
    def _tolerance(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._is_failing:
                print(f"glm130b: {self._path}: cannot be written ({error.strerror}); the run goes on", file=sys.stderr)
            self._is_failing = True


def _step_of(line: str) -> float:
    """The line's step; a line that a kill cut short counts as never reached."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
