"""Every sink gets everything, in order, and none can stop another or the run."""

import pytest

from glm130b.training.journal import Event, Journal
from glm130b.training.metrics import Record
from glm130b.training.sinks.recorder import Recorder

RECORD = Record(kind="validation", step=0, samples=0, values={"loss": 2.0})
EVENT = Event("spike", 3, "told")


class Lines:
    """A sink that writes into a list shared with others."""

    def __init__(self, name: str, lines: list[tuple[str, object]], *, broken: bool = False) -> None:
        self._name = name
        self._lines = lines
        self.broken = broken

    def begin(self, step: int) -> None:
        self._add(step)

    def write(self, record: Record) -> None:
        self._add(record)

    def tell(self, event: Event) -> None:
        self._add(event)

    def close(self) -> None:
        self._add("closed")

    def _add(self, thing: object) -> None:
        if self.broken:
            raise RuntimeError("out of order")
        self._lines.append((self._name, thing))


def test_every_sink_gets_everything_in_order() -> None:
    lines: list[tuple[str, object]] = []
    with Recorder([Lines("first", lines), Lines("second", lines)]) as recorder:
        recorder.begin(7)
        recorder.write(RECORD)
        Journal(recorder.tell).tell(EVENT)
    assert lines == [(name, thing) for thing in (7, RECORD, EVENT, "closed") for name in ("first", "second")]


def test_closing_twice_closes_once() -> None:
    lines: list[tuple[str, object]] = []
    with Recorder([Lines("first", lines)]) as recorder, recorder:
        pass
    assert lines == [("first", "closed")]


def test_slow_sinks_finish_side_by_side() -> None:
    lines: list[tuple[str, object]] = []

    class SlowLines(Lines):
        def end(self) -> None:
            self._add("ended")

    Recorder([SlowLines("first", lines), Lines("second", lines), SlowLines("third", lines)]).close()
    assert [act for _, act in lines] == ["ended", "ended", "closed", "closed", "closed"]


def test_a_broken_sink_is_told_of_once_and_stops_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[tuple[str, object]] = []
    broken = Lines("broken", lines, broken=True)
    recorder = Recorder([broken, Lines("whole", lines)])
    for _ in range(3):
        recorder.write(RECORD)
    assert lines == [("whole", RECORD)] * 3
    assert capsys.readouterr().err == "glm130b: Lines: RuntimeError: out of order; the run goes on\n"
    broken.broken = False
    recorder.write(RECORD)
    broken.broken = True
    recorder.write(RECORD)
    assert capsys.readouterr().err.count("out of order") == 1, "a new failure after a recovery is news"
