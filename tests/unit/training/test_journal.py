"""Who hears of an event, and where it is kept."""

import json
from pathlib import Path

import pytest

from glm130b.training.journal import Event, Journal

SPIKE = Event("spike", 12, "loss 9.1 is 30 deviations above 4.2", {"loss": 9.1})


def test_an_event_is_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(tmp_path).tell(SPIKE)
    Journal(tmp_path).tell(Event("resume", 10, "from step 10"))  # another start of the run
    assert capsys.readouterr().out.splitlines()[0] == "glm130b: step 12: spike: loss 9.1 is 30 deviations above 4.2"
    first, second = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {key: first[key] for key in ("name", "step", "details")} == {
        "name": "spike",
        "step": 12,
        "details": {"loss": 9.1},
    }
    assert second["name"] == "resume"


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    Journal(None).tell(SPIKE)
    assert capsys.readouterr() == ("", "")


def test_a_folder_that_is_gone_takes_the_line_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Journal(tmp_path / "gone").tell(SPIKE)
    said = capsys.readouterr()
    assert "spike" in said.out
    assert "events.jsonl: cannot be written (No such file or directory)" in said.err
