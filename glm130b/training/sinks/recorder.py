"""Gives each record of a step to everyone who wants it."""

from collections.abc import Sequence
from typing import Protocol

from glm130b.training.metrics import Record


class Sink(Protocol):
    """Somewhere records go. Lives on one rank only."""

    def write(self, record: Record) -> None: ...

    def close(self) -> None: ...


class Recorder:
    """Hands each record to the sinks of this rank; ranks without sinks record nothing."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def write(self, record: Record) -> None:
        for sink in self._sinks:
            sink.write(record)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()
