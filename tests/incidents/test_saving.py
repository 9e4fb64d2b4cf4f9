"""Crashes in the middle of a save, a disk that is full, a file system that goes away and comes back (2022-05-31)."""

from functools import partial

import pytest

from tests.harness.incidents_run import assert_equal_ends, assert_nothing_lost
from tests.harness.incidents_strikes import (
    UPDATE,
    FileStrike,
    Strike,
    be_killed,
    bring_back,
    fail_to_write,
    fill_the_disk,
    free_the_disk,
    lose_the_file_system,
    move_away,
)
from tests.incidents.conftest import STEPS, Site, Undisturbed

AT_ONCE = "checkpoint.asynchronous=false"
INSTANTS = {
    "another rank opens its file": FileStrike(1, "open", "step-00000012.writing", be_killed),
    "the first rank begins": FileStrike(0, "os.mkdir", "step-00000012.writing", be_killed),
    "the description is written": FileStrike(0, "open", "step-00000012.writing/run.json", be_killed),
    "the checksums are written": FileStrike(0, "open", "step-00000012.writing/checksums.json", be_killed),
    "the checkpoint gets its name": FileStrike(0, "os.rename", "step-00000012.writing", be_killed),
    "latest moves": FileStrike(0, "os.rename", "checkpoints/latest", be_killed, call=2),
}
TELLING = "latest moves"


@pytest.mark.parametrize(
    "instant",
    [pytest.param(i, marks=() if i == TELLING else pytest.mark.full) for i in INSTANTS],
)
def test_killed_in_the_middle_of_a_save(site: Site, undisturbed: Undisturbed, instant: str) -> None:
    """Until the last rename the checkpoint before is the run's, and the next save clears what was left behind."""
    run = site.run(AT_ONCE, faults=[INSTANTS[instant]])
    assert -9 in run.starts[0].statuses
    assert run.starts[1].steps[0] == 7
    assert not [path.name for path in run.checkpoints.iterdir() if path.name.startswith(".")]
    assert_nothing_lost(run)
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
@pytest.mark.parametrize("rank", [0, 1])
def test_killed_while_a_save_is_written_beside(site: Site, undisturbed: Undisturbed, rank: int) -> None:
    run = site.run(faults=[FileStrike(rank, "open", f".writing/__{rank}", be_killed, call=2)])
    assert run.starts[0].statuses[rank] == -9
    assert_nothing_lost(run)
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.full)])
def test_a_full_disk_costs_a_checkpoint_and_nothing_else(site: Site, undisturbed: Undisturbed, rank: int) -> None:
    """The run trains on and tries again; the good checkpoint stays."""
    full = FileStrike(rank, "open", ".step-00000012.writing", fail_to_write)
    retry = "checkpoint.retry_after_steps=2"
    run = site.run(AT_ONCE, retry, faults=[full])
    assert len(run.starts) == 1
    (failed,) = run.events("checkpoint failed")
    assert "No space left on device" in failed["message"]
    assert run.saved_steps == [6, 15, 18, 24]  # the failure is heard after step 13
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
def test_a_disk_that_is_full_for_every_file(site: Site, undisturbed: Undisturbed) -> None:
    """For the metrics and the journal, too, which lose their lines of that time."""
    faults = [Strike(0, UPDATE, fill_the_disk, call=10), Strike(0, UPDATE, free_the_disk, call=15)]
    run = site.run(AT_ONCE, faults=faults)
    assert len(run.starts) == 1, run.starts[0].everything_said
    assert 12 not in run.saved_steps
    whole = undisturbed()
    assert run.records[-3:] == whole.records[-3:]
    assert all(record in whole.records for record in run.records)
    assert run.tensors(STEPS) == whole.tensors(STEPS)


@pytest.mark.full
def test_a_file_system_that_is_gone_at_a_save(site: Site, undisturbed: Undisturbed) -> None:
    checkpoints = site.folder / "run" / "checkpoints"
    retry = "checkpoint.retry_after_steps=3"
    faults = [
        Strike(0, UPDATE, partial(move_away, checkpoints), call=11),
        Strike(0, UPDATE, partial(bring_back, checkpoints), call=14),
    ]
    run = site.run(AT_ONCE, retry, faults=faults)
    assert len(run.starts) == 1
    assert [event["step"] for event in run.events("checkpoint failed")] == [13]
    assert run.saved_steps == [6, 16, 18, 24]
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
def test_a_file_system_that_is_gone_at_the_last_save(site: Site, undisturbed: Undisturbed) -> None:
    """Nothing is left to do but to wait for it."""
    gone = FileStrike(0, "os.mkdir", ".step-00000024.writing", lose_the_file_system, calls=100, seconds=0.5)
    run = site.run(faults=[gone])
    assert len(run.starts) == 1
    assert run.events("checkpoint failed")
    assert_equal_ends(run, undisturbed(), steps=STEPS)
