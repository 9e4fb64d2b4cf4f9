"""Ends that are asked for: by Slurm before its limit, by an operator, by the clock. Nothing is lost by them."""

import time
from functools import partial

import pytest

from tests.harness.incidents_run import Run, assert_equal_ends
from tests.harness.incidents_strikes import FORWARD, Deed, Strike, be_asked_to_end, be_warned, set_the_clock
from tests.incidents.conftest import STEPS, Site, Undisturbed


def ended(run: Run) -> str:
    return (run.folder / "ended").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize(
    ("deed", "word"),
    [
        pytest.param(be_warned, "SIGUSR1 on rank 1"),
        pytest.param(be_asked_to_end, "SIGTERM on rank 1", marks=pytest.mark.full),
    ],
)
def test_a_signal_to_one_rank_saves_and_ends_all(site: Site, undisturbed: Undisturbed, deed: Deed, word: str) -> None:
    """In the middle of a step; the step is finished first."""
    run = site.run(faults=[Strike(1, FORWARD, deed, call=16)])
    assert [start.statuses for start in run.starts] == [[0, 0]]
    assert ended(run) == "requeue"
    step = run.starts[0].steps[-1]
    assert run.saved_steps[-1] == step < STEPS
    assert word in run.starts[0].said()
    run = site.run()
    assert run.starts[0].steps[0] == step + 1
    assert ended(run) == "complete"
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
def test_a_stop_file_ends_one_start_only(site: Site, undisturbed: Undisturbed) -> None:
    stop = site.folder / "run" / "stop"
    run = site.run(faults=[Strike(1, FORWARD, stop.touch, call=16)])
    assert [start.statuses for start in run.starts] == [[0, 0]]
    assert ended(run) == "requeue"
    assert run.starts[0].steps[-1] < STEPS
    run = site.run()
    assert ended(run) == "complete"
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
def test_a_run_that_asks_for_its_next_start_by_its_status(site: Site, undisturbed: Undisturbed) -> None:
    status = "supervision.requeue_status=85"
    run = site.run(status, faults=[Strike(0, FORWARD, be_warned, call=16)])
    assert [start.statuses for start in run.starts] == [[85, 85], [0, 0]]
    assert run.starts[1].steps[0] == run.starts[0].steps[-1] + 1
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
def test_a_time_budget(site: Site, undisturbed: Undisturbed) -> None:
    """The run ends with the budget of 12 s; its remaining steps would take a minute."""
    run = site.run(
        "supervision.time_budget_minutes=0.2",
        faults=[Strike(0, FORWARD, partial(time.sleep, 4.0), call=10, calls=100)],
    )
    assert [start.statuses for start in run.starts] == [[0, 0]]
    assert ended(run) == "requeue"
    assert run.starts[0].steps[-1] < STEPS
    assert "time budget of" in run.starts[0].said()
    assert run.starts[0].seconds < 40
    run = site.run()
    assert ended(run) == "complete"
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
def test_a_clock_that_jumps_changes_nothing(site: Site, undisturbed: Undisturbed) -> None:
    """Three days ahead on one machine, back on another: nobody counts by the time of day."""
    options = ("supervision.silence_seconds=5", "supervision.time_budget_minutes=5")
    faults = [Strike(rank, FORWARD, partial(set_the_clock, days), call=8) for rank, days in ((0, 3), (1, -3))]
    run = site.run(*options, faults=faults)
    assert len(run.starts) == 1
    assert_equal_ends(run, undisturbed(), steps=STEPS)
