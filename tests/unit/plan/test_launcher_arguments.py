"""What the launch script tells the deepspeed launcher."""

from pathlib import Path

import pytest

from glm130b.cli import main
from glm130b.plan import launcher_arguments

TINY = str(Path(__file__).parents[3] / "configs" / "tiny.yaml")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ([], "--num_accelerators 8\n"),
        (["parallel.pipeline=4"], "--num_accelerators 16\n"),
        (["parallel.data=null"], "--num_accelerators 4\n"),
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
