"""The page that Weights & Biases would get, and that a dry run asks nobody."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb

from glm130b.cli import main
from glm130b.config.load import dump_config
from glm130b.report.panels import SECTIONS
from tests.harness.synthetic import small_config


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder, as far as the page needs it."""
    folder = tmp_path / "small"
    folder.mkdir()
    config = small_config(logging={"wandb": "offline", "project": "ours", "entity": "team"})
    (folder / "config.yaml").write_text(dump_config(config))
    return folder


def page(file: Path, *words: str | Path) -> dict[str, Any]:
    assert main(["dashboard", *map(str, words), "--dry-run", str(file)]) == 0
    view: dict[str, Any] = json.loads(file.read_text())
    return view


def sections(view: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = view["spec"]["section"]["panelBankConfig"]["sections"]
    return found


def test_a_dry_run_writes_every_panel_and_calls_nobody(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(*_: object) -> None:
        raise AssertionError("somebody was called")

    monkeypatch.setattr(socket.socket, "connect", nobody)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    view = page(tmp_path / "page.json", run)
    assert (view["entity"], view["project"], view["displayName"]) == ("team", "ours", "glm130b small")
    assert [section["name"] for section in sections(view)] == ["Stability", "Loss", "Throughput", "Data", "Schedules"]
    for section, found in zip(SECTIONS, sections(view), strict=True):
        for panel, plot in zip(section.panels, found["panels"], strict=True):
            drawn = plot["config"]
            assert drawn["chartTitle"] == panel.title
            assert drawn["xAxis"] == "samples"
            assert tuple(drawn["metrics"]) == panel.names
            assert drawn.get("metricRegex") == panel.pattern
            assert drawn.get("yLogScale", False) == (panel.scale == "log")
    assert "page of project ours, not saved" in capsys.readouterr().out


def test_only_the_runs_asked_for_are_shown(tmp_path: Path, run: Path) -> None:
    other = tmp_path / "moved"
    other.mkdir()
    (other / "config.yaml").write_text(dump_config(small_config(name="small.2")))
    search = page(tmp_path / "page.json", run, other)["spec"]["section"]["runSets"][0]["search"]
    assert search == {"query": r"^(small|small\.2)$", "isRegex": True}


def test_two_dry_runs_can_be_compared(tmp_path: Path, run: Path) -> None:
    assert page(tmp_path / "one.json", run) == page(tmp_path / "two.json", run)


def test_without_runs_the_project_is_named(tmp_path: Path) -> None:
    view = page(tmp_path / "page.json", "--project", "theirs", "--entity", "them")
    assert (view["project"], view["entity"]) == ("theirs", "them")
    assert view["spec"]["section"]["runSets"][0]["search"]["query"] == ""


def test_a_folder_without_a_run_is_a_users_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"glm130b: error: {tmp_path}: is no run's folder, it has no config.yaml of one\n"


def test_a_file_that_cannot_be_written_is_a_users_matter(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nowhere" / "page.json"
    assert main(["dashboard", str(run), "--dry-run", str(file)]) == 2
    message = f"--dry-run {file}: cannot be written (No such file or directory); name another file"
    assert capsys.readouterr().err == f"glm130b: error: {message}\n"


def test_no_account_is_a_users_matter(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    wandb.teardown()
    assert main(["dashboard", str(run)]) == 2
    assert "no account is known; run `wandb login`" in capsys.readouterr().err


def test_an_account_without_an_entity_is_a_users_matter(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Api:
        default_entity = None

        def __init__(self, **_: object) -> None: ...

    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "Api", Api)
    assert main(["dashboard", str(run)]) == 2
    assert "name a team or user with --entity" in capsys.readouterr().err


def test_a_missing_package_is_a_users_matter(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert main(["dashboard", str(run)]) == 2
    assert "wandb-workspaces is not installed" in capsys.readouterr().err
