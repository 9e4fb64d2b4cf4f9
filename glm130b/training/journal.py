"""What happens to a run beside its numbers: spikes and what was done about them, failed saves, slow ranks, resumes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any


def now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


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
    time: str = field(default_factory=now, compare=False)
    """When (``now``)."""

    def __str__(self) -> str:
        return f"step {self.step}: {self.name}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, a line of ``events.jsonl``: a number that is not finite becomes None."""
        return {
            "time": self.time,
            "step": self.step,
            "name": self.name,
            "message": self.message,
            "details": _plain(self.details),
        }


def _plain(value: Any) -> Any:
    """As JSON knows it."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Journal:
    """Where the parts of a run tell what happens to it.

    Lives on every rank, so that nobody has to ask who may speak; only the first one's has a listener: the sinks, which
    say each event on the console at once and keep it in ``events.jsonl``.
    """

    def __init__(self, listener: Callable[[Event], None] | None) -> None:
        """``listener`` None keeps silent."""
        self._listener = listener

    def tell(self, event: Event) -> None:
        if self._listener:
            self._listener(event)
