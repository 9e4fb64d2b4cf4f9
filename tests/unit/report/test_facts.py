"""What a person asks first."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.invented_run import write_run
from glm130b.report.facts import facts, short
from glm130b.report.reading import RunHistory, read_run

CONFIG = "train_samples: 160\ndata:\n  sequence_length: 256\n"


def at(minute: int) -> str:
    return f"2026-11-01T23:{minute:02d}:00+00:00"


def run_of(folder: Path, *, config: str = CONFIG, **more: Any) -> RunHistory:
    records = [
        {"kind": "train", "step": n, "samples": 4 * n, "time": at(2 * n), "seconds": 90.0, "overflows": n}
        | {"loss": 9.0 if n <= 10 else 2.0}
        for n in range(1, 21)
    ]
    validation = {"kind": "validation", "step": 20, "samples": 80, "time": at(42), "loss": 2.125}
    return read_run(write_run(folder, [*records, validation], config=config, **more), name="run")


def test_facts(tmp_path: Path) -> None:
    resume = {"time": "t", "step": 10, "name": "resume", "message": "", "details": {}}
    run = run_of(tmp_path, events=[resume, resume], ended="requeue")
    assert dict(facts(run)) == {
        "Status": "requeue",
        "Last step": "20",
        "Samples": "80 (50%)",
        "Tokens": "20,480",
        "Loss": "2.0000",
        "Validation loss": "2.1250",
        "Wall clock": "41 min 30 s",
        "Time in steps": "30 min 0 s (72%)",
        "Restarts": "2",
        "Overflows": "20",
    }


@pytest.mark.parametrize(("first", "clock"), [(at(2), ["3 min 0 s", "3 min 0 s (100%)"]), (None, ["–", "3 min 0 s"])])
def test_the_clock_begins_with_the_first_step(tmp_path: Path, first: str | None, clock: list[str]) -> None:
    step = {"kind": "train", "samples": 4, "seconds": 90.0}
    records = [{**step, "step": 1, "time": first}, {**step, "step": 2, "time": "2026-11-01T23:03:30+00:00"}]
    known = dict(facts(read_run(write_run(tmp_path, records), name="run")))
    assert [known["Wall clock"], known["Time in steps"]] == clock


def test_a_run_without_an_end_is_running_or_has_fallen_silent(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    assert dict(facts(run, now=run.written + timedelta(minutes=5)))["Status"] == "running"
    late = dict(facts(run, now=run.written + timedelta(hours=5)))["Status"]
    assert late == f"silent since {run.written:%Y-%m-%d %H:%M} UTC"


def test_a_run_that_has_seen_every_sample_is_complete(tmp_path: Path) -> None:
    run = run_of(tmp_path, config="train_samples: 80\n")
    assert dict(facts(run, now=run.written + timedelta(hours=5)))["Status"] == "complete"


def test_what_is_not_known_is_a_dash(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, [{"kind": "validation", "step": 0, "samples": 0, "loss": None}]), name="run")
    unknown = {name for name, value in facts(run) if value == "–"}
    assert unknown == {"Tokens", "Loss", "Validation loss", "Wall clock", "Time in steps", "Restarts", "Overflows"}


@pytest.mark.parametrize(
    ("number", "words"), [(999, "999"), (999_999, "999,999"), (4.01e11, "401 billion"), (1.5e12, "1.5 trillion")]
)
def test_large_numbers_are_words(number: float, words: str) -> None:
    assert short(number) == words
