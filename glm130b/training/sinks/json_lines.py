"""``metrics.jsonl`` and ``events.jsonl`` in the run's folder: one JSON object a record, one an event."""

import json
import math
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from glm130b.training.journal import Event
from glm130b.training.metrics import Record


class JsonLines:
    """Appends a line at once, so that a killed run keeps what it printed.

    A run that goes on from a checkpoint repeats the steps since then: their older records are cut off first, all of
    them when it starts anew. Events stay, since they happened. Every method raises ``OSError`` when the disk is full or
    gone, and can then be called again: a line is written whole or not at all, and never behind one that was cut short.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` is the run's."""
        self._metrics = _LineFile(folder / "metrics.jsonl")
        self._events = _LineFile(folder / "events.jsonl")
        self._newest_step: int | None = None
        """Of the records written by this process."""

    def begin(self, step: int) -> None:
        if self._newest_step is None or self._newest_step > step:
            self._metrics.end_with(step or -1)  # the evaluation before the first step is of step 0
        self._newest_step = step

    def write(self, record: Record) -> None:
        self._metrics.append(record.to_dict())
        self._newest_step = record.step

    def tell(self, event: Event) -> None:
        self._events.append(event.to_dict())

    def close(self) -> None:
        """Everything is written already."""


def count_events(folder: Path, *, before: str) -> Counter[str]:
    """How many events of each name a run has told of before a time (``journal.now``), as far as its file can be
    read."""
    counts: Counter[str] = Counter()
    with suppress(OSError), (folder / "events.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):  # cut short by a kill
                event = json.loads(line)
                counts[event["name"]] += event["time"] < before
    return counts


class _LineFile:
    """A file of JSON lines in the order of their ``step``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end: int | None = None
        """Of its last whole line, in bytes; None until that is looked up. What stands behind it was cut short."""

    def append(self, line: dict[str, Any]) -> None:
        end = self.end_with(math.inf) if self._end is None else self._end
        text = rest = json.dumps(line).encode() + b"\n"
        # Opened each time: a handle from before a file server was away may never work again.
        with self._path.open("ab", buffering=0) as file:
            end = min(end, file.seek(0, os.SEEK_END))
            file.truncate(end)
            while rest:
                rest = rest[file.write(rest) :]
        self._end = end + len(text)

    def end_with(self, step: float) -> int:
        """Cut off, in place, what follows the lines up to ``step``, and a line without its end; where it ends now."""
        end = 0
        with self._path.open("a+b") as file:
            file.seek(0)
            for line in file:
                if not line.endswith(b"\n") or _step_of(line) > step:
                    break
                end += len(line)
            file.truncate(end)
        self._end = end
        return end


def _step_of(line: bytes) -> float:
    """The line's step; below every other when it is no record: such a line stays, and readers pass over it."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -math.inf
