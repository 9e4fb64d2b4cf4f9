"""The order of renames, by ending the process at every call to the file system."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from glm130b.checkpoint.checksums import verify
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.config.errors import UserError
from tests.unit.checkpoint.files import content, write_checkpoint

WHOLE = ["__0_0.distcp", "checksums.json", "run.json", "tensors.json"]
CALLS = [(os, name) for name in ("rename", "replace", "mkdir", "rmdir", "unlink", "fsync", "open")] + [(io, "open")]


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def steps(paths: list[Path]) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in paths]


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """One that a run has made."""
    folder = CheckpointFolder(tmp_path / "checkpoints")
    folder.create()
    return folder


def test_a_run_without_checkpoints(folder: CheckpointFolder, tmp_path: Path) -> None:
    for unused in (folder, CheckpointFolder(tmp_path / "nothing")):
        assert (unused.latest(), unused.remark(), unused.whole(), unused.candidates()) == (None, None, [], [])
    assert names(tmp_path) == ["checkpoints"]


def test_begin_then_commit(folder: CheckpointFolder) -> None:
    assert folder.begin(100) == folder.writing(100)
    assert names(folder.writing(100)) == []
    assert folder.latest() is None
    assert write_checkpoint(folder, 100) == folder.latest() == folder.path / "step-00000100"
    assert names(folder.path) == ["latest", "step-00000100"]
    assert names(folder.path / "step-00000100") == WHOLE
    assert verify(folder.path / "step-00000100") == []


def test_a_folder_that_is_gone_is_not_made_again(folder: CheckpointFolder) -> None:
    folder.path.rmdir()
    with pytest.raises(FileNotFoundError):
        folder.begin(100)
    assert not folder.path.exists()


def test_latest_is_the_one_written_last(folder: CheckpointFolder) -> None:
    for step in (10, 20, 5):  # 5: the run was taken back and goes on from there
        assert write_checkpoint(folder, step) == folder.latest()
    assert steps(folder.whole()) == [5, 10, 20]
    assert steps(folder.candidates()) == [5]
    assert folder.remark() is None


def test_a_step_is_overwritten_whole(folder: CheckpointFolder) -> None:
    (write_checkpoint(folder, 10, "old") / "more").write_text("of the old one")
    assert names(write_checkpoint(folder, 10, "new")) == WHOLE
    assert content(folder.path / "step-00000010") == "new"
    assert names(folder.path) == ["latest", "step-00000010"]


def test_begin_clears_leftovers_and_keeps_whole_checkpoints(folder: CheckpointFolder) -> None:
    write_checkpoint(folder, 10)
    (folder.begin(20) / "half a shard").write_text("x")
    assert names(folder.begin(20)) == []
    folder.begin(30)
    assert names(folder.path) == [".step-00000030.writing", "latest", "step-00000010"]
    folder.abort(30)
    assert names(folder.path) == ["latest", "step-00000010"]


class Killed(BaseException):
    """The end of the process: from then on nothing works."""


@contextmanager
def ending(monkeypatch: pytest.MonkeyPatch, calls: int, error: Callable[[], BaseException]) -> Iterator[list[str]]:
    """``error`` instead of every call to the file system behind the first ``calls``; the names of all calls."""
    made: list[str] = []

    def wrapped(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            if len(made) > calls:
                raise error()
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for module, name in CALLS:
            patch.setattr(module, name, wrapped(name, getattr(module, name)))
        yield made


@pytest.mark.parametrize("error", [Killed, lambda: OSError(28, "No space left on device")])
@pytest.mark.parametrize("step", [10, 20])
def test_an_end_at_any_instant_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, error: Callable[[], BaseException]
) -> None:
    """Also while a checkpoint is written once more, and when nothing stands beside it."""
    ends: set[str] = set()
    for calls in range(200):
        folder = CheckpointFolder(tmp_path / str(calls))
        folder.create()
        write_checkpoint(folder, 10, "old")
        with ending(monkeypatch, calls, error) as made:
            try:
                write_checkpoint(folder, step, "new")
            except (Killed, OSError):
                ends.add(made[calls])
            else:
                break
        candidates = folder.candidates()
        assert candidates
        assert [verify(candidate) for candidate in candidates] == [[] for _ in candidates]
        assert content(candidates[0]) in ("old", "new")
        assert folder.latest() == candidates[0]
        assert write_checkpoint(folder, 20, "later") == folder.latest()  # the restarted run comes by again
        assert [content(whole) for whole in folder.whole()][-1] == "later"
        assert not any(name.startswith(".") for name in names(folder.path))
    assert ends >= {"rename", "replace", "mkdir", "fsync"}
    assert 10 < calls < 100


def test_nothing_newer_than_latest_names_is_a_candidate(folder: CheckpointFolder) -> None:
    for step in (10, 20, 30):
        write_checkpoint(folder, step)
    (folder.path / "latest").write_text("step-00000020\n")
    assert steps(folder.candidates()) == [20, 10]
    assert folder.remark() is None
    (folder.path / "latest").write_text("step-00000025")
    assert steps(folder.candidates()) == [20, 10]
    assert folder.remark() == (
        f"{folder.path / 'latest'}: names step 25, which is not a whole checkpoint; "
        "the newest below it is taken, step-00000020"
    )


@pytest.mark.parametrize("text", ["", "step-", "step-0000002x", "/etc/passwd", "../step-00000010", "step-" + "9" * 40])
def test_a_latest_that_tells_nothing_means_the_newest(folder: CheckpointFolder, text: str) -> None:
    for step in (10, 20):
        write_checkpoint(folder, step)
    (folder.path / "latest").write_text(text)
    assert steps(folder.candidates()) == [20, 10]
    assert folder.remark() == (
        f"{folder.path / 'latest'}: does not name a checkpoint; the newest is taken, step-00000020"
    )
    (folder.path / "latest").unlink()
    assert steps(folder.candidates()) == [20, 10]
    assert folder.remark() == f"{folder.path / 'latest'}: is missing; the newest is taken, step-00000020"


@pytest.mark.parametrize("lost", WHOLE[1:])
def test_half_a_checkpoint_is_none(folder: CheckpointFolder, lost: str) -> None:
    write_checkpoint(folder, 10)
    (write_checkpoint(folder, 20) / lost).unlink()
    assert steps(folder.whole()) == steps(folder.candidates()) == [10]


@pytest.mark.parametrize("remains", ["latest", "step-00000010", "damaged-step-00000010"])
def test_a_run_that_has_lost_its_checkpoints_does_not_start_anew(folder: CheckpointFolder, remains: str) -> None:
    (folder.path / remains).mkdir()
    with pytest.raises(UserError) as raised:
        CheckpointFolder(folder.path).check_unused()
    (problem,) = raised.value.problems
    assert problem == (
        f"{folder.path}: holds {remains}, and no whole checkpoint of this version; "
        "copy one back, or choose another name for the run to start anew"
    )


def test_a_checkpoint_by_its_step(folder: CheckpointFolder) -> None:
    for step in (10, 20):
        write_checkpoint(folder, step)
    folder.begin(30)
    assert folder.at(10) == folder.path / "step-00000010"
    with pytest.raises(UserError) as raised:
        folder.at(30)
    assert raised.value.problems == (f"{folder.path}: has no whole checkpoint of step 30; it has 10, 20",)
    with pytest.raises(UserError, match=r"of step 1; it has none$"):
        CheckpointFolder(folder.path / "nowhere").at(1)


def test_what_is_set_aside_is_kept_and_never_loaded(folder: CheckpointFolder) -> None:
    write_checkpoint(folder, 10)
    for number in ("", "-2", "-3"):
        damaged = write_checkpoint(folder, 20, f"damaged{number}")
        aside = folder.set_aside(damaged)
        assert aside == folder.path / f"damaged-step-00000020{number}"
        assert content(aside) == f"damaged{number}"
    assert steps(folder.candidates()) == [10]
    assert folder.set_aside(folder.path / "step-00000010", "abandoned").name == "abandoned-step-00000010"
    with pytest.raises(UserError, match=r"holds abandoned-step-00000010, damaged-step-00000020, .* \.\.\., and no"):
        folder.latest()


@pytest.mark.parametrize(
    ("keep_last", "keep_every_steps", "kept"),
    [(None, None, [10, 20, 30, 40]), (2, None, [30, 40]), (1, 20, [20, 40]), (9, 7, [10, 20, 30, 40])],
)
def test_the_newest_and_every_nth_stay(
    folder: CheckpointFolder, keep_last: int | None, keep_every_steps: int | None, kept: list[int]
) -> None:
    for step in (10, 20, 30, 40):
        write_checkpoint(folder, step)
    gone = folder.retain(keep_last=keep_last, keep_every_steps=keep_every_steps)
    assert sorted(steps(gone) + kept) == [10, 20, 30, 40]
    assert steps(folder.whole()) == kept
    assert names(folder.path) == ["latest", *(f"step-{step:08d}" for step in kept)]


def test_every_file_that_goes_is_told(folder: CheckpointFolder) -> None:
    for step in (10, 20, 30):
        write_checkpoint(folder, step)
    (folder.path / "step-00000010" / "more").mkdir()
    (folder.path / "step-00000010" / "more" / "notes").touch()
    told: list[int] = []
    folder.retain(keep_last=1, keep_every_steps=None, advance=lambda: told.append(len(names(folder.path))))
    assert len(told) == 2 * len(WHOLE) + 1
    assert names(folder.path) == ["latest", "step-00000030"]


def test_a_checkpoint_that_is_a_link_goes_and_what_it_leads_to_stays(folder: CheckpointFolder, tmp_path: Path) -> None:
    write_checkpoint(folder, 10)
    (folder.path / "step-00000010").rename(tmp_path / "elsewhere")
    (folder.path / "step-00000010").symlink_to(tmp_path / "elsewhere")
    write_checkpoint(folder, 20)
    folder.retain(keep_last=1, keep_every_steps=None)
    assert names(folder.path) == ["latest", "step-00000020"]
    assert names(tmp_path / "elsewhere") == WHOLE


def test_a_run_that_was_taken_back_keeps_where_it_stands(folder: CheckpointFolder) -> None:
    for step in (10, 30, 40, 20):
        write_checkpoint(folder, step)
    folder.retain(keep_last=1, keep_every_steps=None)
    assert steps(folder.whole()) == [20, 30, 40]


def test_a_run_that_was_taken_back_does_not_mix_two_pasts(folder: CheckpointFolder) -> None:
    for step in (41000, 41233):
        write_checkpoint(folder, step, "first past")
    (folder.path / "latest").write_text("step-00041000")
    folder.abandon_after(41000)  # as a run that goes on from there
    write_checkpoint(folder, 41250, "second past")
    assert steps(folder.candidates()) == steps(folder.whole())[::-1] == [41250, 41000]
    assert content(folder.path / "abandoned-step-00041233") == "first past"


def test_what_was_abandoned_goes_once_the_run_has_left_it_behind(folder: CheckpointFolder) -> None:
    for number in ("", "-2"):
        for step in (20, 40):
            write_checkpoint(folder, step, f"past{number}")
        folder.go_back_to(folder.path / "step-00000020")
    folder.set_aside(write_checkpoint(folder, 30))  # damaged: that is no past
    set_aside = ["abandoned-step-00000040", "abandoned-step-00000040-2", "damaged-step-00000030"]
    for step in (30, 40, 50):  # of these only one is above 40
        write_checkpoint(folder, step)
        assert folder.retain(keep_last=2, keep_every_steps=None) == (
            [] if step == 30 else [folder.path / f"step-{step - 20:08d}"]
        )
        assert [path.name for path in folder.aside()] == set_aside
    write_checkpoint(folder, 60)
    assert folder.left_behind(keep_last=None) == folder.left_behind(keep_last=9) == []
    gone = folder.retain(keep_last=2, keep_every_steps=None)
    assert [path.name for path in gone] == ["step-00000040", *set_aside[:2]]
    assert names(folder.path) == ["damaged-step-00000030", "latest", "step-00000050", "step-00000060"]


def test_half_a_deletion_leaves_nothing_that_looks_whole(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (10, 20, 30):
        write_checkpoint(folder, step)
    for calls in range(100):
        with ending(monkeypatch, calls, lambda: OSError(5, "Input/output error")) as made:
            try:
                folder.retain(keep_last=1, keep_every_steps=None)
            except OSError:
                pass
            else:
                break
        assert all(verify(whole) == [] for whole in folder.whole())
        assert steps(folder.candidates())[0] == 30
    assert "rename" in made or calls > 2
    folder.begin(40)
    assert steps(folder.whole()) == [30]
