"""Nodes that hung instead of dying: what a node failure of the log may look like to the others."""

import re
import socket
import time
from functools import partial

import pytest

from tests.harness.incidents_run import assert_equal_ends, assert_nothing_lost
from tests.harness.incidents_strikes import FORWARD, UPDATE, FileStrike, Strike, be_stopped, until_named
from tests.incidents.conftest import STEPS, Site, Undisturbed

SILENCE = "supervision.silence_seconds=2"


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.full)])
def test_a_stopped_rank_is_named_and_the_job_ends(site: Site, undisturbed: Undisturbed, rank: int) -> None:
    """SIGSTOP: the process is there, its connections are open, and nothing comes any more."""
    run = site.run(SILENCE, faults=[Strike(rank, UPDATE, be_stopped, call=15)], grace_seconds=1.0)
    first = run.starts[0]
    assert first.hanging == [rank]  # it cannot end by itself, and the launcher kills it
    assert first.statuses[1 - rank] == 1
    assert f"rank {rank} ({socket.gethostname()}): no sign of life for" in first.everything_said
    # What it was at by its last sign of life, up to a few steps before.
    assert re.search(r"last phase: \w.* step \d+", first.everything_said)
    assert_nothing_lost(run)
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
def test_a_rank_that_lives_and_does_not_move(site: Site, undisturbed: Undisturbed) -> None:
    """Its threads answer, its arithmetic hangs."""
    options = (SILENCE, "supervision.stall_seconds=6")
    hang = Strike(1, FORWARD, partial(time.sleep, 1000), call=16)
    run = site.run(*options, faults=[hang], grace_seconds=30.0)
    first = run.starts[0]
    assert first.hanging == []
    assert "has not moved for" in first.everything_said
    assert_nothing_lost(run)
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
@pytest.mark.parametrize(("rank", "file"), [(1, "__1_0.distcp"), (0, "checksums.json")])
def test_a_save_that_hangs_beside_training(site: Site, undisturbed: Undisturbed, rank: int, file: str) -> None:
    """A write to a dead mount never returns; the main thread trains on, or waits for the save at the end."""
    hang = FileStrike(rank, "open", f"step-00000012.writing/{file}", partial(time.sleep, 1000))
    latest = site.folder / "run" / "checkpoints" / "latest"
    # One that is still being written when the next is due would take its place.
    pause = Strike(0, UPDATE, partial(until_named, latest, "step-00000006"), call=12)
    run = site.run("supervision.stall_seconds=40", faults=[hang, pause], grace_seconds=60.0)
    first = run.starts[0]
    assert first.hanging == []
    assert f"RuntimeError: the checkpoint of step 12 hangs on rank {rank}: nothing of it" in first.everything_said
    assert run.starts[1].steps[0] == 7
    assert_nothing_lost(run)
    assert_equal_ends(run, undisturbed(), steps=STEPS)
