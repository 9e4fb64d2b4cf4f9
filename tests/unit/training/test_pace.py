"""A slow rank is named, once, and nobody else ever is."""

import pytest
import torch

from glm130b.config.supervision import SupervisionConfig
from glm130b.training.pace import Pace, Piece
from glm130b.training.progress import Progress
from tests.harness.journal import Told

WINDOW = 10


class ToldLines(Told):
    """What the events say of a rank."""

    @property
    def lines(self) -> list[tuple[int, str, int]]:
        return [(event.step, event.name, event.details["rank"]) for event in self.events]


@pytest.fixture
def told() -> ToldLines:
    return ToldLines()


@pytest.fixture
def listener(told: ToldLines) -> Pace:
    config = SupervisionConfig(slow_rank_factor=2.0, slow_rank_steps=WINDOW)
    return Pace(config, hosts=("n0", "n1", "n2", "n3"), device=torch.device("cpu"), journal=told)


def hear(listener: Pace, steps: range, *seconds: float) -> None:
    for step in steps:
        listener.hear(torch.tensor(seconds, dtype=torch.float64), Progress(step=step))


def test_a_slow_rank_is_named_with_its_host_when_the_window_is_full(listener: Pace, told: ToldLines) -> None:
    hear(listener, range(1, 15), 1.0, 1.1, 5.0, 0.9)
    (event,) = told.events
    assert (event.name, event.step, event.details) == ("slow rank", WINDOW, {"rank": 2, "host": "n2", "factor": 5.0})
    assert event.message == "rank 2 on n2 takes 5.0 times as long as the others for the same work"


def test_equal_ranks_are_not_named(listener: Pace, told: ToldLines) -> None:
    hear(listener, range(1, 50), 1.0, 1.9, 1.2, 1.0)
    assert told.events == []


def test_one_stall_names_nobody_and_two_in_the_window_do(listener: Pace, told: ToldLines) -> None:
    hear(listener, range(1, 20), 1.0, 1.0, 1.0, 1.0)
    hear(listener, range(20, 21), 1.0, 1.0, 1.0, 1000.0)
    hear(listener, range(21, 25), 1.0, 1.0, 1.0, 1.0)
    assert told.events == []
    hear(listener, range(25, 26), 1.0, 1.0, 1.0, 1000.0)
    assert told.lines == [(25, "slow rank", 3)]


def test_a_rank_that_stays_slow_is_told_of_again_and_one_that_recovers_is_too(listener: Pace, told: ToldLines) -> None:
    hear(listener, range(1, 151), 1.0, 1.0, 4.0, 1.0)
    hear(listener, range(151, 180), 1.0, 1.0, 1.0, 1.0)
    assert told.lines == [(10, "slow rank", 2), (110, "slow rank", 2), (158, "slow rank recovered", 2)]


def test_a_rank_at_the_limit_is_told_of_once(listener: Pace, told: ToldLines) -> None:
    for step in range(1, 60, 2):
        hear(listener, range(step, step + 1), 1.0, 1.0, 1.0, 2.3)
        hear(listener, range(step + 1, step + 2), 1.0, 1.0, 1.0, 1.9)
    assert told.lines == [(10, "slow rank", 3)]


def test_of_two_ranks_one_can_be_slow(listener: Pace, told: ToldLines) -> None:
    hear(listener, range(1, 12), 1.0, 5.0)
    assert told.lines == [(10, "slow rank", 1)]


def test_the_piece_is_short_and_takes_time() -> None:
    piece = Piece(torch.device("cpu"))
    assert 1e-5 < min(piece.seconds() for _ in range(20)) < 0.05


def test_a_wait_for_a_core_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process had waited 10 s for its core in the meantime: what stays is its work."""
    piece = Piece(torch.device("cpu"))
    waits = iter((0.0, 10.0))
    monkeypatch.setattr(piece, "_seconds_waited", lambda: next(waits))
    assert 1e-5 < piece.seconds() < 0.5
