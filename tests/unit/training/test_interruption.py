"""Why a run is asked to end: heard on one rank, the same on all."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from glm130b.training import interruption
from glm130b.training.interruption import Interruption
from glm130b.training.progress import Progress


class Clock:
    """Time as the test tells it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(interruption, "time", clock)
    return clock


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[list[Interruption]]:
    """Four ranks of one run; the signals of this process reach the last."""
    ranks = [asked(tmp_path, is_first_rank=rank == 0) for rank in range(4)]
    with ranks[3]:
        yield ranks


def asked(folder: Path, **changes: Any) -> Interruption:
    return Interruption(
        folder, **{"is_first_rank": True, "time_budget_minutes": None, "started": time.monotonic(), **changes}
    )


def roll_call(ranks: list[Interruption]) -> set[str | None]:
    """The reasons that the ranks know afterwards."""
    said = torch.tensor([rank.say() for rank in ranks], dtype=torch.float64)
    for rank in ranks:
        rank.hear(said, Progress(step=1))
    return {rank.reason for rank in ranks}


def test_nothing_ends_a_run_that_nobody_asks_to_end(ranks: list[Interruption]) -> None:
    assert roll_call(ranks) == {None}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_on_one_rank_is_heard_by_all(ranks: list[Interruption], name: str) -> None:
    os.kill(os.getpid(), signal.Signals[name])
    assert roll_call(ranks) == {f"{name} on rank 3"}


def test_a_signal_to_every_process_is_one_reason(tmp_path: Path) -> None:
    ranks = [asked(tmp_path) for _ in range(4)]
    for rank in ranks:
        with rank:
            signal.raise_signal(signal.SIGUSR1)
    assert roll_call(ranks) == {"SIGUSR1 on rank 0 and 3 others"}


def test_the_first_reason_stays(ranks: list[Interruption]) -> None:
    signal.raise_signal(signal.SIGUSR1)
    roll_call(ranks)
    signal.raise_signal(signal.SIGTERM)
    assert roll_call(ranks) == {"SIGUSR1 on rank 3"}


def test_handlers_are_given_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with asked(tmp_path):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_a_stop_file_is_heard_once(ranks: list[Interruption], tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    assert roll_call(ranks) == {"stop file"}
    assert not (tmp_path / "stop").exists()


def test_a_stop_file_waits_for_the_next_start_when_a_signal_came_first(
    ranks: list[Interruption], tmp_path: Path
) -> None:
    (tmp_path / "stop").touch()
    with ranks[0]:
        signal.raise_signal(signal.SIGTERM)
    assert roll_call(ranks) == {"SIGTERM on rank 0"}
    assert (tmp_path / "stop").exists()


def test_a_file_system_that_is_away_stops_nobody(ranks: list[Interruption], monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: Path) -> bool:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(Path, "exists", gone)
    assert roll_call(ranks) == {None}


def test_a_step_that_would_end_behind_the_budget_is_not_begun(tmp_path: Path, clock: Clock) -> None:
    rank = asked(tmp_path, time_budget_minutes=30.0, started=clock.now)
    for seconds in (100, 10, 300, 10):  # from the second on they are steps: the longest takes 300 s
        clock.now += seconds
        assert roll_call([rank]) == {None}
    clock.now = 1000.0 + 1500
    assert roll_call([rank]) == {"time budget of 30 minutes"}


def test_the_budget_leaves_time_for_the_save(tmp_path: Path, clock: Clock) -> None:
    ranks = [asked(tmp_path, time_budget_minutes=1.5, started=clock.now) for _ in range(2)]
    for rank in ranks:
        rank.expect_save(60.0)
    clock.now += 10
    assert roll_call(ranks) == {None}
    clock.now += 11  # 21 s are over, a step takes 11 s, a save 60 s
    assert roll_call(ranks) == {"time budget of 1.5 minutes"}


def test_the_budget_of_the_next_process_leaves_time_for_the_save_too(tmp_path: Path, clock: Clock) -> None:
    """It may make none before its last one, and so may every process behind it."""

    def seconds_of_steps() -> float:
        started = clock.now
        ranks = [asked(tmp_path, is_first_rank=first, time_budget_minutes=2.0, started=started) for first in (1, 0)]
        while roll_call(ranks) == {None}:
            clock.now += 10
        for rank in ranks:  # the save at its end
            rank.expect_save(62.5)
        return clock.now - started

    assert [seconds_of_steps() for _ in range(3)] == [120, 50, 50]
    (tmp_path / "save_seconds").write_text("")  # cut short by a kill
    assert seconds_of_steps() == 120


def test_only_the_first_rank_looks_at_file_and_clock(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "stop").touch()
    rank = asked(tmp_path, is_first_rank=False, time_budget_minutes=0.5, started=clock.now - 60)
    assert roll_call([rank]) == {None}


@pytest.mark.parametrize(("window", "apart", "status"), [(60.0, 0.0, 0), (0.1, 0.5, -signal.SIGTERM)])
def test_a_second_sigterm_ends_a_process_at_once_unless_it_is_the_same_request(
    window: float, apart: float, status: int
) -> None:
    script = f"""
import os, signal, time
from pathlib import Path
from glm130b.training import interruption
interruption._ONE_REQUEST_SECONDS = {window}
with interruption.Interruption(Path("."), is_first_rank=True, time_budget_minutes=None, started=0.0):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep({apart})
    os.kill(os.getpid(), signal.SIGTERM)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == status
