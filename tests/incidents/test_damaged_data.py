"""Data that cannot be read: a shard that is gone or cut short."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.harness.incidents_run import assert_equal_ends
from tests.harness.incidents_strikes import UPDATE, Strike, be_killed, bring_back, move_away
from tests.incidents.conftest import STEPS, Site, Undisturbed


def cut_in_half(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)


def lose(file: Path) -> None:
    file.unlink()


@pytest.mark.full
@pytest.mark.parametrize(("suffix", "damage"), [("bin", cut_in_half), ("bin", lose), ("idx", cut_in_half)])
def test_a_damaged_shard_is_named_and_the_run_goes_on_when_it_is_mended(
    site: Site, corpora: Path, undisturbed: Undisturbed, damage: Callable[[Path], None], suffix: str
) -> None:
    """Found by the start after a kill: status 2, no stack trace, the run as it was."""
    words, shard = site.folder / "words", site.folder / "words" / f"train.{suffix}"
    shutil.copytree(corpora / "words", words)
    here = f"data.text.words.path={words}"
    site.run(here, faults=[Strike(1, UPDATE, be_killed, call=15)], most_starts=1)
    damage(shard)
    refused = site.run(here).starts
    assert refused[0].statuses[0] == 2
    assert "glm130b: error" in refused[0].said()
    assert str(words) in refused[0].said()
    assert "Traceback" not in refused[0].said()
    shutil.copy(corpora / "words" / shard.name, shard)
    mended = site.run(here)
    assert mended.starts[0].steps[0] > 6
    assert_equal_ends(mended, undisturbed(), steps=STEPS)


def test_data_that_is_gone_at_a_restart_is_waited_for(site: Site, corpora: Path, undisturbed: Undisturbed) -> None:
    """The restart ends so that a next one may come, which goes on when the data are back."""
    words = site.folder / "words"
    shutil.copytree(corpora / "words", words)
    here = (f"data.text.words.path={words}", "checkpoint.patience_seconds=1")
    run = site.run(*here, faults=[Strike(1, UPDATE, partial(move_away_and_be_killed, words), call=15)])
    restart = run.starts[1]
    assert restart.statuses[0] == 1
    assert "the next try is in 1 s" in restart.said()
    assert f"{words} is no folder" in restart.said()
    assert "Traceback" not in restart.everything_said
    bring_back(words)
    run = site.run(*here)
    assert run.starts[0].steps[0] > 6
    assert_equal_ends(run, undisturbed(), steps=STEPS)


def move_away_and_be_killed(folder: Path) -> None:
    move_away(folder)
    be_killed()


@pytest.mark.full
def test_a_shard_cut_short_under_a_running_job(site: Site, corpora: Path, undisturbed: Undisturbed) -> None:
    """The mapped pages are gone, the kernel ends the rank that reads them, and the restart says why."""
    words, shard = site.folder / "words", site.folder / "words" / "train.bin"
    shutil.copytree(corpora / "words", words)
    here = f"data.text.words.path={words}"
    run = site.run(here, faults=[Strike(0, UPDATE, partial(cut_to_nothing, shard), call=9)])
    assert run.starts[-1].statuses[0] == 2
    assert str(words) in run.starts[-1].said()
    shutil.copy(corpora / "words" / shard.name, shard)
    run = site.run(here)
    assert_equal_ends(run, undisturbed(), steps=STEPS)


def cut_to_nothing(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(0)
