"""A thread of its own for a sink that may be slow: a network, a file system that hangs."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from glm130b.training.journal import Event
from glm130b.training.metrics import Record
from glm130b.training.sinks.recorder import Sink, complain


@dataclass(frozen=True)
class Patience:
    """How long one sink may take over what."""

    retry_seconds: float
    """Between two tries to make the sink, or to give it what it could not take."""
    event_seconds: float
    """The training waits so long for an event to be written, because the process may be about to end; 0: not at all."""
    close_seconds: float
    """For everything that is left, when the run ends."""
    slow_seconds: float = 0.2
    """A sink that took longer over its newest item is not waited for at an event."""
    tries: int = 3
    """To make the sink, before what is made instead of it."""


@dataclass(frozen=True)
class Substitute:
    """What takes a sink's place that could not be made."""

    make: Callable[[], Sink]
    notice: str
    """What is said when it does."""


@dataclass
class _Item:
    """Something to hand to the sink."""

    hand_to: Callable[[Sink], None]
    may_be_dropped: bool = True
    is_done: threading.Event = field(default_factory=threading.Event)


class Background:
    """Takes records at once and hands them, in order, to a sink that lives on a daemon thread.

    The sink is made on that thread too, since importing its library or reaching its server takes time. While it cannot
    be made, or raises ``OSError``, nothing is lost at first: the same item is tried again. Any other exception is about
    the item, which is dropped. The first failure is told, the others are not, until the sink works again. When
    ``capacity`` items wait, the oldest make room and are counted.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Sink],
        *,
        substitute: Substitute | None = None,
        patience: Patience,
        capacity: int = 1000,
        tell: Callable[[str], None] = complain,
    ) -> None:
        """``name`` is what a complaint calls the sink. The substitute comes when ``make`` has failed too often, or
        when the run ends before it worked. ``tell`` gets the complaints, from any thread."""
        self._name = name
        self._make = make
        self._substitute = substitute
        self._patience = patience
        self._capacity = capacity
        self._complain = tell
        self._sink: Sink | None = None
        self._waiting: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._closes_at = math.inf
        """On the monotonic clock; known once the end has come."""
        self._is_failing = False
        self._is_slow = False
        self._num_lost = 0
        self._num_tries = 0
        self._recovery = "works again"
        self._thread = threading.Thread(target=self._work, name=f"sink {name}", daemon=True)
        self._thread.start()

    def begin(self, step: int) -> None:
        self._put(_Item(lambda sink: sink.begin(step), may_be_dropped=False))

    def write(self, record: Record) -> None:
        self._put(_Item(lambda sink: sink.write(record)))

    def tell(self, event: Event) -> None:
        item = _Item(lambda sink: sink.tell(event))
        keeps_pace = not (self._waiting or self._is_failing or self._is_slow)
        self._put(item)
        if keeps_pace and not item.is_done.wait(self._patience.event_seconds):
            self._is_slow = True  # until its thread has handed over something quickly

    def end(self) -> None:
        """Finish, while others do; ``close`` waits for it."""
        with self._changed:
            if not self._is_closing:
                self._closes_at = time.monotonic() + self._patience.close_seconds
            self._changed.notify_all()

    def close(self) -> None:
        """Returns ``close_seconds`` after the end at the latest; what is not written by then is lost."""
        self.end()
        self._thread.join(max(0, self._closes_at - time.monotonic()))
        with self._changed:
            self._num_lost += len(self._waiting)
        if self._thread.is_alive():
            self._complain(f"{self._name}: not done after {self._patience.close_seconds:.0f} s{self._lost()}; given up")
        elif self._num_lost:
            self._complain(f"{self._name}: the run ends{self._lost()}")

    @property
    def _is_closing(self) -> bool:
        return self._closes_at < math.inf

    def _put(self, item: _Item) -> None:
        with self._changed:
            if self._is_closing:
                return
            if len(self._waiting) >= self._capacity:
                self._make_room()
            self._waiting.append(item)
            self._changed.notify_all()

    def _make_room(self) -> None:
        oldest = next((item for item in self._waiting if item.may_be_dropped), None)
        if oldest:
            self._waiting.remove(oldest)
            self._num_lost += 1

    def _work(self) -> None:
        while item := self._next():
            try:
                self._sink = self._sink or self._made()
                begun = time.monotonic()
                item.hand_to(self._sink)
                self._is_slow = time.monotonic() - begun > self._patience.slow_seconds
                self._recovered()
            except BaseException as error:  # whatever a library raises, exits included, the run goes on
                self._failed(error)
                if self._sink is None or isinstance(error, OSError):
                    if not self._postpone(item):
                        break
                    continue
                self._num_lost += 1
            item.is_done.set()
        if self._sink:
            try:
                self._sink.close()
            except BaseException as error:
                self._failed(error)

    def _made(self) -> Sink:
        if self._substitute and self._num_tries and (self._num_tries >= self._patience.tries or self._is_closing):
            self._make, self._recovery, self._substitute = self._substitute.make, self._substitute.notice, None
        self._num_tries += 1
        return self._make()

    def _next(self) -> _Item | None:
        """The oldest item, as soon as there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            return self._waiting.popleft() if self._waiting else None

    def _postpone(self, item: _Item) -> bool:
        """Put an item back and wait before the next try; False when the sink has failed at the end, too."""
        with self._changed:
            self._waiting.appendleft(item)
            if self._is_closing:
                return self._sink is None and self._substitute is not None
            until = time.monotonic() + self._patience.retry_seconds
            self._changed.wait_for(lambda: self._is_closing or time.monotonic() >= until, self._patience.retry_seconds)
        return True

    def _failed(self, error: BaseException) -> None:
        if not self._is_failing:
            self._complain(f"{self._name}: {type(error).__name__}: {error}; the run goes on")
        self._is_failing = True

    def _recovered(self) -> None:
        if self._is_failing:
            self._complain(f"{self._name}: {self._recovery}{self._lost()}")
            self._num_lost = 0
        self._is_failing, self._recovery = False, "works again"

    def _lost(self) -> str:
        return f", {self._num_lost} records and events are lost" if self._num_lost else ""
