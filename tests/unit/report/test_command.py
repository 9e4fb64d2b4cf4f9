"""``glm130b report`` as a user calls it."""

import sys
from pathlib import Path

import pytest

from benchmarks.invented_run import write_run
from glm130b.cli import main


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "tiny", [{"kind": "train", "step": 1, "samples": 4, "loss": 8.0}])


def test_one_page_and_nothing_beside_it(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = run_folder.parent / "page.html"
    assert main(["report", str(run_folder), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: 1 run, 1 chart, {output.stat().st_size / 1e6:.1f} MB\n"
    assert output.read_text().endswith("</html>\n")
    assert sorted(file.name for file in output.parent.iterdir()) == ["page.html", "tiny"]


def test_letters_that_are_none(tmp_path: Path) -> None:
    """JSON can hold halves of letters, which no file can."""
    half = "\ud800"
    record = {"kind": "train", "step": 1, "samples": 4, f"loss/{half}": 8.0}
    run = write_run(tmp_path / "tiny", [record], events=[{"step": 1, "name": half, "message": half, "details": {}}])
    assert main(["report", str(run), "--output", str(tmp_path / "page.html")]) == 0


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "page.html"
    assert main(["report", str(tmp_path), "--output", str(output)]) == 2
    assert capsys.readouterr().err.startswith(f"glm130b: error: {tmp_path}: holds no metrics.jsonl")
    assert not output.exists()


def test_a_place_that_cannot_be_written(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run_folder), "--output", str(run_folder / "no" / "page.html")]) == 2
    assert "cannot be written (No such file or directory); name another file" in capsys.readouterr().err


def test_without_plotly(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert main(["report", str(run_folder)]) == 2
    assert capsys.readouterr().err == (
        "glm130b: error: report: needs the package plotly; pip install 'glm130b[report]'\n"
    )


def test_pictures_without_kaleido(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page is written all the same."""
    monkeypatch.setitem(sys.modules, "kaleido", None)
    output = run_folder.parent / "page.html"
    assert main(["report", str(run_folder), "--output", str(output), "--png", str(run_folder / "png")]) == 2
    assert "needs the package kaleido" in capsys.readouterr().err
    assert output.exists()
