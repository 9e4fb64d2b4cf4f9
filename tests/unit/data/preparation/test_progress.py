"""Progress in a log: a line now and then, with the rate of this run."""

import pytest

from glm130b.data.preparation import progress
from glm130b.data.preparation.progress import show_progress


def test_lines_tell_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 10.0, 40.0, 45.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with show_progress(total_bytes=1000_000_000, done_bytes=200_000_000) as advance:
        for _ in range(3):
            advance(100_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["tokenising: 400 of 1000 MB, 5.0 MB/s, 2 minutes left"]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with show_progress(total_bytes=1 << 20, done_bytes=0) as advance:
        advance(1 << 19)
    assert "tokenising" in capsys.readouterr().err
