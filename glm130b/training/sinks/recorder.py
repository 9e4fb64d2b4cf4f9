"""Gives each record of a step, and each event, to everyone who wants it."""

import sys
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from glm130b.training.journal import Event
from glm130b.training.metrics import Record


class Sink(Protocol):
    """Somewhere records and events go. Lives on one rank only, and as long as the job's process."""

    def begin(self, step: int) -> None:
        """Training goes on from ``step``, at the start of the process or after a rewind: records of later steps that
        were written before are void."""

    def write(self, record: Record) -> None: ...

    def tell(self, event: Event) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class SlowSink(Sink, Protocol):
    """A sink whose ``close`` may take its time."""

    def end(self) -> None:
        """No more comes. Every slow sink is told so before the first is closed, so that they finish side by side."""


class Recorder:
    """Hands records and events to the sinks of this rank; ranks without sinks record nothing.

    What a sink raises stops nobody, neither the run nor the other sinks. It is said once, until the sink works again.
    As a context it closes the sinks at its end, in their order.
    """

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks: tuple[Sink, ...] = tuple(sinks)
        self._failing: set[Sink] = set()

    def begin(self, step: int) -> None:
        self._each(lambda sink: sink.begin(step))

    def write(self, record: Record) -> None:
        self._each(lambda sink: sink.write(record))

    def tell(self, event: Event) -> None:
        self._each(lambda sink: sink.tell(event))

    def close(self) -> None:
        """Once more does nothing."""
        self._each(lambda sink: sink.end() if isinstance(sink, SlowSink) else None)
        self._each(lambda sink: sink.close())
        self._sinks = ()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _each(self, act: Callable[[Sink], None]) -> None:
        for sink in self._sinks:
            try:
                act(sink)
                self._failing.discard(sink)
            except Exception as error:  # a run is worth more than its record
                if sink not in self._failing:
                    complain(f"{type(sink).__name__}: {type(error).__name__}: {error}; the run goes on")
                self._failing.add(sink)


def complain(text: str) -> None:
    """Say on stderr what is wrong with a sink; where even that is gone, nobody hears it."""
    try:
        print(f"glm130b: {text}", file=sys.stderr, flush=True)
    except OSError:
        return
