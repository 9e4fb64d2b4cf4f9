"""``metrics.jsonl``: one JSON object a record."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm130b.training.metrics import Record


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
