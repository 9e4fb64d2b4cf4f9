"""Starts that find something wrong: a file system that cannot be read (2022-05-31), a checkpoint that is damaged."""

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.harness.incidents import Start
from tests.harness.incidents_run import assert_equal_ends
from tests.harness.incidents_strikes import UPDATE, FileStrike, Strike, be_killed, lose_the_file_system
from tests.incidents.conftest import STEPS, Site, Undisturbed

AT_ONCE = "checkpoint.asynchronous=false"
KILLED_AT_20 = Strike(1, UPDATE, be_killed, call=20)


def flip_a_bit(checkpoint: Path) -> None:
    shard = max(checkpoint.glob("*.distcp"), key=lambda file: file.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)


def cut_short(checkpoint: Path) -> None:
    shard = max(checkpoint.glob("*.distcp"), key=lambda file: file.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-1])


def lose_a_shard(checkpoint: Path) -> None:
    next(checkpoint.glob("*.distcp")).unlink()


def lose_the_description(checkpoint: Path) -> None:
    (checkpoint / "run.json").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        pytest.param(cut_short, marks=pytest.mark.full),
        pytest.param(lose_a_shard, marks=pytest.mark.full),
    ],
)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    site: Site, undisturbed: Undisturbed, damage: Callable[[Path], None]
) -> None:
    run = site.run(AT_ONCE, faults=[KILLED_AT_20], most_starts=1)
    assert run.saved_steps == [6, 12, 18]
    damage(run.checkpoint(18))
    run = site.run(AT_ONCE)
    assert run.starts[0].steps[0] == 13
    (told,) = run.events("damaged checkpoint")
    assert "step-00000018" in told["message"]
    assert told["message"] in run.starts[0].said()
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
def test_a_newest_checkpoint_that_is_not_whole(site: Site, undisturbed: Undisturbed) -> None:
    run = site.run(AT_ONCE, faults=[KILLED_AT_20], most_starts=1)
    lose_the_description(run.checkpoint(18))
    run = site.run(AT_ONCE)
    assert run.starts[0].steps[0] == 13
    assert "step 18" in run.starts[0].said()
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
def test_no_good_checkpoint_is_left(site: Site) -> None:
    """Then the run does not silently begin anew."""
    run = site.run(AT_ONCE, faults=[KILLED_AT_20], most_starts=1)
    for step in run.saved_steps:
        flip_a_bit(run.checkpoint(step))
    run = site.run(AT_ONCE)
    assert run.starts[0].statuses[0] == 2
    assert "glm130b: error" in run.starts[0].said()
    assert "Traceback" not in run.starts[0].said()


@pytest.mark.full
@pytest.mark.parametrize("what", ["checkpoints", "checkpoints/step-00000018"])
def test_a_file_system_that_is_gone_when_the_run_starts_is_waited_for(
    site: Site, undisturbed: Undisturbed, what: str
) -> None:
    """2022-05-31: the run waits, says so, and goes on from where it stood when the files are back."""
    run = site.run(AT_ONCE, faults=[KILLED_AT_20], most_starts=1)
    part, away = run.folder / what, site.folder / "away"
    if what == "checkpoints":
        part.rename(away)
        run = site.run(AT_ONCE, outside=partial(_bring_back, away, part))
    else:
        run = site.run(AT_ONCE, faults=[FileStrike(None, "open", what, lose_the_file_system, calls=1000, seconds=0.5)])
    assert len(run.starts) == 1, run.starts[0].everything_said
    assert run.starts[0].steps[0] == 19
    assert run.events("file system gone")
    assert_equal_ends(run, undisturbed(), steps=STEPS)


def _bring_back(away: Path, part: Path, start: Start) -> None:
    start.wait_until(lambda: "file system gone" in start.said())
    time.sleep(0.2)
    shutil.move(away, part)
