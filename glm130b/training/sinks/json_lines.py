"""``metrics.jsonl`` and ``events.jsonl`` in the run's folder: one JSON object a record, one an event."""

import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from glm130b.training.journal import Event
from glm130b.training.metrics import Record


class JsonLines:
    """Appends a line at once, so that a killed run keeps what it printed.

    A run that goes on from a checkpoint repeats the steps since then: their older records are dropped first, all of
    them when it starts anew. Events stay, since they happened. Every method raises ``OSError`` when the disk is full or
    gone, and can then be called again: a line is written whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` is the run's."""
        self._metrics = _LineFile(folder / "metrics.jsonl")
        self._events = _LineFile(folder / "events.jsonl")
        self._newest_step: int | None = None
        """Of the records written by this process."""

    def begin(self, step: int) -> None:
        if self._newest_step is None:
            self._events.keep(lambda _: True)
        if self._newest_step is None or self._newest_step > step:
            self._metrics.keep(lambda recorded: step > 0 and recorded <= step)
        self._newest_step = step

    def write(self, record: Record) -> None:
        self._metrics.append(record.to_dict())
        self._newest_step = record.step

    def tell(self, event: Event) -> None:
        self._events.append(event.to_dict())

    def close(self) -> None:
        """Everything is written already."""


def count_events(folder: Path) -> Counter[str]:
    """How many events of each name a run's earlier starts have told of, as far as its file can be read."""
    counts: Counter[str] = Counter()
    with suppress(OSError), (folder / "events.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):  # cut short by a kill
                counts[str(json.loads(line)["name"])] += 1
    return counts


class _LineFile:
    """A file of JSON lines with a ``step``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._torn_at: int | None = None
        """Where a line begins that could not be written to its end."""

    def append(self, line: dict[str, Any]) -> None:
        rest = json.dumps(line).encode() + b"\n"
        # Opened each time: a handle from before a file server was away may never work again.
        with self._path.open("ab", buffering=0) as file:
            if self._torn_at is not None:
                file.truncate(self._torn_at)
            self._torn_at = file.seek(0, os.SEEK_END)
            while rest:
                rest = rest[file.write(rest) :]
            self._torn_at = None

    def keep(self, is_kept: Callable[[float], bool]) -> None:
        """Drop the lines of other steps, and what is no line."""
        if not self._path.exists():
            return
        beside = self._path.with_suffix(".tmp")
        with self._path.open("rb") as lines, beside.open("wb") as kept:
            kept.writelines(line for line in lines if (step := _step_of(line)) is not None and is_kept(step))
        beside.replace(self._path)
        self._torn_at = None


def _step_of(line: bytes) -> float | None:
    """The line's step; None when it is no record, because a kill cut it short."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None
