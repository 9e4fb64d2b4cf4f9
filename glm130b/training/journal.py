"""What happens to a run beside its numbers: spikes and what was done about them, failed saves, slow ranks, resumes."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that a person would want to know of."""

    name: str
    """A word or two, the same for every event of its kind: ``gradient norm``, ``rewound``, ``checkpoint failed``."""
    step: int
    """Steps taken when it happened."""
    message: str
    """What happened, why, and what was done, in one line."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Its numbers, as plain data."""


class Journal:
    """Says each event on the console at once and keeps it in ``events.jsonl``, which outlives restarts and rewinds.

    Lives on every rank, so that nobody has to ask who may speak; only the first one's has a folder and speaks. A file
    system that is gone takes nothing but the line away.
    """

    def __init__(self, folder: Path | None) -> None:
        """``folder`` is the run's; None keeps silent."""
        self._file = folder / "events.jsonl" if folder else None

    def tell(self, event: Event) -> None:
        if self._file is None:
            return
        print(f"glm130b: step {event.step}: {event.name}: {event.message}", file=sys.stdout, flush=True)
        line = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), **asdict(event)}
        try:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            print(f"glm130b: {self._file}: cannot be written ({error.strerror})", file=sys.stderr, flush=True)
