"""What the launch scripts tell the launchers."""

from pathlib import Path

import pytest

from glm130b import launcher_arguments
from glm130b.cli import main

TINY = str(Path(__file__).parents[2] / "configs" / "tiny.yaml")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ([], "--num_accelerators 8\n"),
        (["parallel.pipeline=4"], "--num_accelerators 16\n"),
        (["parallel.data=null"], "--num_accelerators 4\n"),
        (["parallel.data=largest"], "--num_accelerators 4\n"),
    ],
)
def test_without_a_gpu_the_layout_says_how_many(
    overrides: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher_arguments, "_has_gpu", lambda: False)
    assert main(["launcher-arguments", TINY, *overrides]) == 0
    assert capsys.readouterr().out == line


def test_with_gpus_the_launcher_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(launcher_arguments, "_has_gpu", lambda: True)
    assert main(["launcher-arguments", TINY]) == 0
    assert capsys.readouterr().out == "\n"


@pytest.mark.parametrize(("has_gpu", "line"), [(False, "--nproc-per-node 8\n"), (True, "--nproc-per-node gpu\n")])
def test_torchrun_is_told_either_way(
    has_gpu: bool, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher_arguments, "_has_gpu", lambda: has_gpu)
    monkeypatch.setattr(launcher_arguments, "check_files", lambda config: None)
    assert main(["launcher-arguments", "--launcher", "torchrun", TINY]) == 0
    assert capsys.readouterr().out == line


def test_a_missing_file_is_found_before_torchrun_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["launcher-arguments", "--launcher", "torchrun", TINY]) == 2
    assert "data.text.english.path" in capsys.readouterr().err
