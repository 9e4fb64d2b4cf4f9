"""Which sinks a run has."""

import io
import json
from pathlib import Path

import pytest

from glm130b.training.journal import Event, Journal
from glm130b.training.metrics import Record
from glm130b.training.sinks.opening import open_recorder
from tests.harness.synthetic import small_config


def test_a_run_leaves_what_its_config_asks_for(tmp_path: Path) -> None:
    stream = io.StringIO()
    config = small_config(logging={"wandb": "disabled", "tensorboard": True})
    with open_recorder(config, tmp_path, facts={}, stream=stream) as recorder:
        recorder.begin(0)
        recorder.write(Record("train", 1, 8, {"loss": 2.5}))
        Journal(recorder.tell).tell(Event("spike", 1, "told"))
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "events.jsonl", "tensorboard"}
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 2.5
    assert json.loads((tmp_path / "events.jsonl").read_text())["name"] == "spike"
    assert "glm130b: step 1: spike: told\n" in stream.getvalue()


def test_an_event_is_on_disk_when_the_teller_goes_on(tmp_path: Path) -> None:
    recorder = open_recorder(small_config(), tmp_path, facts={}, stream=io.StringIO())
    recorder.tell(Event("invariant broken", 1, "and the process ends"))
    assert "invariant broken" in (tmp_path / "events.jsonl").read_text()
    recorder.close()


def test_a_folder_that_is_gone_is_told_of_and_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_recorder(small_config(), tmp_path / "gone", facts={}, stream=io.StringIO()) as recorder:
        recorder.write(Record("train", 1, 8, {"loss": 2.5}))
    said = capsys.readouterr().err
    assert "metrics.jsonl, events.jsonl: FileNotFoundError" in said
    assert "1 records and events are lost" in said
