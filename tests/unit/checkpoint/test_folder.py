"""The order of renames, by stopping between any two of them."""

from pathlib import Path

import pytest

from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.config.errors import UserError


def write(folder: CheckpointFolder, step: int, content: str = "whole") -> Path:
    """A checkpoint as the store writes it."""
    writing = folder.begin(step)
    (writing / ".metadata").write_text(content)
    return folder.commit(step, "{}")


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_a_run_without_checkpoints(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "checkpoints").latest() is None
    assert names(tmp_path) == []


def test_begin_then_commit(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    writing = folder.begin(100)
    assert writing == folder.writing(100)
    assert names(writing) == []
    assert folder.latest() is None
    (writing / ".metadata").write_text("whole")
    assert folder.commit(100, "{}") == folder.latest() == tmp_path / "checkpoints" / "step-00000100"
    assert names(tmp_path / "checkpoints") == ["latest", "step-00000100"]


def test_latest_is_the_one_written_last(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (10, 20, 5):  # 5: the run was taken back and goes on from there
        assert write(folder, step) == folder.latest()
    assert names(tmp_path) == ["latest", "step-00000005", "step-00000010", "step-00000020"]


def test_a_step_is_overwritten_whole(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    (write(folder, 10, "old") / "shard").write_text("of the old one")
    assert names(write(folder, 10, "new")) == [".metadata", "run.json"]
    assert (tmp_path / "step-00000010" / ".metadata").read_text() == "new"


def test_begin_clears_what_a_kill_left(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    (folder.begin(10) / "half a shard").write_text("x")
    assert names(folder.begin(10)) == []


@pytest.mark.parametrize("calls_before", [0, 1])
def test_a_kill_between_renames_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls_before: int
) -> None:
    folder = CheckpointFolder(tmp_path)
    before = write(folder, 10)
    renames = []

    def killed(name: str) -> None:
        original = getattr(Path, name)

        def rename(self: Path, target: Path) -> Path:
            renames.append(name)
            if len(renames) > calls_before:
                raise KeyboardInterrupt
            return Path(original(self, target))

        monkeypatch.setattr(Path, name, rename)

    killed("rename")
    killed("replace")
    with pytest.raises(KeyboardInterrupt):
        write(folder, 20)
    monkeypatch.undo()
    assert renames == ["rename", "replace"][: calls_before + 1]
    assert (tmp_path / "step-00000020").exists() == (calls_before == 1)
    assert folder.latest() == before
    assert write(folder, 20) == folder.latest()  # the restarted run comes by again


@pytest.mark.parametrize("damage", ["gone", "no metadata"])
def test_latest_must_name_a_whole_checkpoint(tmp_path: Path, damage: str) -> None:
    folder = CheckpointFolder(tmp_path)
    whole = write(folder, 10)
    (whole / ".metadata").unlink()
    if damage == "gone":
        (whole / "run.json").unlink()
        whole.rmdir()
    with pytest.raises(UserError) as raised:
        folder.latest()
    (problem,) = raised.value.problems
    assert problem == (
        f"{tmp_path / 'latest'}: names 'step-00000010', which is not a whole checkpoint; write the name of another "
        "step-* folder into it, or choose another name for the run to start anew"
    )


def test_a_lost_latest_is_no_fresh_start(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    write(folder, 10)
    write(folder, 20)
    (tmp_path / "latest").unlink()
    with pytest.raises(UserError, match=r"latest: is missing although step-00000020 is there; write that name into it"):
        folder.latest()


def test_a_checkpoint_by_its_step(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (10, 20):
        write(folder, step)
    (folder.begin(30) / ".metadata").touch()
    assert folder.at(10) == tmp_path / "step-00000010"
    with pytest.raises(UserError) as raised:
        folder.at(30)
    assert raised.value.problems == (f"{tmp_path}: has no whole checkpoint of step 30; it has 10, 20",)
    (tmp_path / "step-00000010" / "run.json").unlink()
    with pytest.raises(UserError, match=r"of step 10; it has 20$"):
        folder.at(10)
    with pytest.raises(UserError, match=r"of step 1; it has none$"):
        CheckpointFolder(tmp_path / "nowhere").at(1)


def test_begin_clears_other_steps_leftovers_and_keeps_whole_checkpoints(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    write(folder, 10)
    (folder.begin(20) / "half a shard").write_text("x")
    folder.begin(30)
    assert names(tmp_path) == [".step-00000030.writing", "latest", "step-00000010"]
