"""A slow or failing sink costs the run nothing, and loses as little as can be."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from glm130b.training.journal import Event
from glm130b.training.metrics import Record
from glm130b.training.sinks.background import Background, Patience, Substitute

QUICK = Patience(retry_seconds=0.001, event_seconds=0.0, close_seconds=10.0)
NEVER_AGAIN = Patience(retry_seconds=1000.0, event_seconds=0.0, close_seconds=10.0)


def record(step: int) -> Record:
    return Record(kind="train", step=step, samples=step, values={})


@dataclass
class Slow:
    """A sink whose disk or network can be made to hang or to fail."""

    got: list[object] = field(default_factory=list)
    flows: threading.Event = field(default_factory=threading.Event)
    errors: Iterator[BaseException | None] = field(default_factory=lambda: iter(()))
    """Of the next deliveries; None, and after the last, they work."""
    num_asked: int = 0

    def __post_init__(self) -> None:
        self.flows.set()

    def begin(self, step: int) -> None:
        self._take(f"begin {step}")

    def write(self, record: Record) -> None:
        self._take(record.step)

    def tell(self, event: Event) -> None:
        self._take(event.name)

    def close(self) -> None:
        self._take("closed")

    def _take(self, thing: object) -> None:
        self.num_asked += 1
        self.flows.wait()
        if error := next(self.errors, None):
            raise error
        self.got.append(thing)


def wait_until(is_so: Callable[[], bool]) -> None:
    """For the sink's thread; a test that waits in vain is ended by its own time limit."""
    while not is_so():
        time.sleep(0.001)


def failing(*errors: Exception, then: Slow) -> Callable[[], Slow]:
    """What makes a sink, after some tries that fail."""
    to_come = iter(errors)

    def make() -> Slow:
        if error := next(to_come, None):
            raise error
        return then

    return make


def test_everything_arrives_in_order() -> None:
    sink, told = Slow(), list[str]()
    background = Background("sink", lambda: sink, patience=QUICK, tell=told.append)
    background.begin(3)
    background.write(record(4))
    background.tell(Event("spike", 4, "told"))
    background.write(record(5))
    background.close()
    assert sink.got == ["begin 3", 4, "spike", 5, "closed"]
    assert told == []


def test_a_sink_that_hangs_keeps_nobody_and_the_oldest_records_make_room() -> None:
    sink, told = Slow(), list[str]()
    sink.flows.clear()
    background = Background("sink", lambda: sink, patience=QUICK, capacity=3, tell=told.append)
    background.begin(0)
    wait_until(lambda: sink.num_asked == 1)  # and hangs
    for step in range(1, 7):
        background.write(record(step))
    background.begin(7)
    for step in range(8, 11):
        background.write(record(step))
    sink.flows.set()
    background.close()
    assert sink.got == ["begin 0", "begin 7", 9, 10, "closed"], "a beginning is never dropped"
    assert told == ["sink: the run ends, 7 records and events are lost"]


def test_a_sink_that_hangs_for_ever_is_given_up() -> None:
    sink, told = Slow(), list[str]()
    sink.flows.clear()
    patience = Patience(retry_seconds=0.001, event_seconds=0.01, close_seconds=0.01)
    background = Background("sink", lambda: sink, patience=patience, tell=told.append)
    background.tell(Event("spike", 1, "waits a moment and no longer"))
    background.write(record(1))
    background.close()
    assert len(told) == 1
    assert "given up" in told[0]
    sink.flows.set()


def test_an_event_is_written_before_the_run_goes_on() -> None:
    sink = Slow()
    patience = Patience(retry_seconds=0.001, event_seconds=10.0, close_seconds=10.0)
    background = Background("sink", lambda: sink, patience=patience)
    background.tell(Event("spike", 1, "the process may end now"))
    assert sink.got == ["spike"]
    background.close()


def test_a_sink_that_was_slow_is_not_waited_for() -> None:
    sink = Slow()
    patience = Patience(retry_seconds=0.001, event_seconds=1000.0, close_seconds=10.0, slow_seconds=0.0)
    background = Background("sink", lambda: sink, patience=patience)
    background.tell(Event("first", 1, "is waited for"))
    sink.flows.clear()
    background.tell(Event("second", 1, "would wait for ever"))
    sink.flows.set()
    background.close()
    assert sink.got == ["first", "second", "closed"]


def test_what_exits_in_a_sink_ends_no_thread() -> None:
    sink, told = Slow(errors=iter([SystemExit(3)])), list[str]()
    background = Background("sink", lambda: sink, patience=QUICK, tell=told.append)
    background.write(record(1))
    background.write(record(2))
    background.close()
    assert sink.got == [2, "closed"]
    assert told[0] == "sink: SystemExit: 3; the run goes on"


def test_a_sink_that_fails_to_the_end_is_closed_all_the_same() -> None:
    sink, told = Slow(errors=iter([OSError("gone")] * 2)), list[str]()
    background = Background("sink", lambda: sink, patience=NEVER_AGAIN, tell=told.append)
    background.write(record(1))
    wait_until(lambda: sink.num_asked == 1)
    background.close()
    assert sink.got == ["closed"]
    assert told[-1] == "sink: the run ends, 1 records and events are lost"


def test_what_a_full_disk_refuses_is_tried_again() -> None:
    full = OSError(28, "No space left on device")
    sink, told = Slow(errors=iter([None, full, full])), list[str]()
    background = Background("sink", lambda: sink, patience=QUICK, tell=told.append)
    for step in range(1, 4):
        background.write(record(step))
    wait_until(lambda: len(sink.got) == 3)
    background.close()
    assert sink.got == [1, 2, 3, "closed"]
    assert told == ["sink: OSError: [Errno 28] No space left on device; the run goes on", "sink: works again"]


def test_a_record_that_a_sink_cannot_take_is_left_out() -> None:
    sink, told = Slow(errors=iter([None, ValueError("no such number")])), list[str]()
    background = Background("sink", lambda: sink, patience=NEVER_AGAIN, tell=told.append)
    for step in range(1, 4):
        background.write(record(step))
    background.close()
    assert sink.got == [1, 3, "closed"]
    assert told[0] == "sink: ValueError: no such number; the run goes on"
    assert told[1] == "sink: works again, 1 records and events are lost"


def test_a_sink_is_made_as_soon_as_it_can_be() -> None:
    sink, told = Slow(), list[str]()
    make = failing(RuntimeError("no network"), RuntimeError("no network"), then=sink)
    background = Background("sink", make, patience=QUICK, tell=told.append)
    background.begin(0)
    background.write(record(1))
    wait_until(lambda: len(sink.got) == 2)
    background.close()
    assert sink.got == ["begin 0", 1, "closed"]
    assert told == ["sink: RuntimeError: no network; the run goes on", "sink: works again"]


@pytest.mark.parametrize("patience", [QUICK, NEVER_AGAIN], ids=["after three tries", "when the run ends"])
def test_a_sink_that_cannot_be_made_has_a_substitute(patience: Patience) -> None:
    sink, told = Slow(), list[str]()
    make = failing(*[RuntimeError("no network")] * 100, then=Slow())
    substitute = Substitute(lambda: sink, "goes on offline")
    background = Background("sink", make, substitute=substitute, patience=patience, tell=told.append)
    background.begin(0)
    background.write(record(1))
    background.close()
    assert sink.got == ["begin 0", 1, "closed"]
    assert told == ["sink: RuntimeError: no network; the run goes on", "sink: goes on offline"]


def test_what_never_could_be_written_is_counted() -> None:
    told = list[str]()
    make = failing(*[RuntimeError("no network")] * 100, then=Slow())
    background = Background("sink", make, patience=NEVER_AGAIN, tell=told.append)
    background.write(record(1))
    background.write(record(2))
    background.close()
    assert told[-1] == "sink: the run ends, 2 records and events are lost"
