"""Run folders as they are found: whole, cut short, of before, and no run at all."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.invented_run import write_run
from glm130b.config.errors import UserError
from glm130b.report.reading import read_run, read_runs


def test_values_become_columns(tmp_path: Path) -> None:
    """A value that was not finite is told from one that was not there, and labels are no values."""
    records = [
        {"kind": "train", "step": 1, "samples": 4, "loss": 8.0, "slowest_host": "node-1"},
        {"kind": "train", "step": 2, "samples": 8, "loss": None, "loss/mask": 7.0},
        {"kind": "validation", "step": 2, "samples": 8, "loss": 7.5},
    ]
    run = read_run(write_run(tmp_path, records, config="model:\n  num_layers: 4\n", ended="complete"), name="run")
    np.testing.assert_array_equal(run.train.get("loss"), [8.0, np.inf])
    np.testing.assert_array_equal(run.train.get("loss/mask"), [np.nan, 7.0])
    np.testing.assert_array_equal(run.train.get("loss/gmask"), [np.nan, np.nan])
    assert run.train.last("loss") == 8.0
    assert "slowest_host" not in run.train.columns
    assert run.validation.steps.tolist() == [2]
    assert (dict(run.config), run.ended, run.events) == ({"model.num_layers": 4}, "complete", ())


def test_a_running_run_whose_last_line_is_cut_short(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [{"kind": "train", "step": 1, "samples": 4, "loss": 8.0}])
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "train", "step": 2, "sam')
    run = read_run(folder, name="run")
    assert (run.train.steps.tolist(), run.ended, run.unreadable) == ([1], None, 0)


def test_lines_that_are_no_records_are_counted(tmp_path: Path) -> None:
    of_no_kind = ['{"kind": "train"}', '{"kind": "other", "step": 1}', '{"kind": ["train"], "step": 1}']
    strange = ['{"kind": "train", "step"', "[1]", "7", *of_no_kind, "\x00", ""]
    good = json.dumps({"kind": "train", "step": 1, "samples": 4, "loss": [1], "huge": 10**400, "literal": 1.0})
    (tmp_path / "metrics.jsonl").write_text("\n".join([*strange, good.replace("1.0", "NaN"), ""]))
    (tmp_path / "events.jsonl").write_text('{"step": 1}\n{"step": 1, "name": "loss", "details": 3}\nx\n')
    (tmp_path / "config.yaml").write_text("a: [")
    run = read_run(tmp_path, name="run")
    assert run.train.steps.tolist() == [1]
    assert np.isinf(run.train.get("literal")[0])
    assert np.isnan([run.train.get("loss")[0], run.train.get("huge")[0]]).all()
    assert run.unreadable == 7 + 2
    assert [(event.name, event.message, dict(event.details)) for event in run.events] == [("loss", "", {})]
    assert run.config == {}


def test_of_a_repeated_step_the_last_record_counts(tmp_path: Path) -> None:
    steps = [1, 2, 3, 2, 3, 4]
    records = [{"kind": "train", "step": step, "samples": 4 * step, "loss": n} for n, step in enumerate(steps)]
    run = read_run(write_run(tmp_path, records), name="run")
    assert run.train.steps.tolist() == [1, 2, 3, 4]
    assert run.train.get("loss").tolist() == [0, 3, 4, 5]


def test_folders_that_are_no_runs_are_told_together(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    unborn = write_run(tmp_path / "unborn", [])
    with pytest.raises(UserError) as caught:
        read_runs([tmp_path / "nowhere", empty, unborn])
    problems = caught.value.problems
    assert len(problems) == 3
    assert "nowhere: is not a folder" in problems[0]
    assert "empty: holds no metrics.jsonl" in problems[1]
    assert "unborn/metrics.jsonl: holds no record yet" in problems[2]


def test_runs_are_named_by_as_much_of_their_paths_as_tells_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"kind": "train", "step": 1, "samples": 4, "loss": 8.0}
    folders = [write_run(tmp_path / parent / "tiny", [record]) for parent in ("a", "b")]
    assert [run.name for run in read_runs(folders)] == ["a/tiny", "b/tiny"]
    assert [run.name for run in read_runs(folders[:1])] == ["tiny"]
    monkeypatch.chdir(tmp_path)
    for twice in (Path("a/tiny"), folders[0]):
        with pytest.raises(UserError, match="tiny: is named twice"):
            read_runs([Path("a/tiny"), twice])
