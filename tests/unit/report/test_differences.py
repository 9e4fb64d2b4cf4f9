"""Configs side by side, and one config over its starts."""

from pathlib import Path

from benchmarks.invented_run import write_run
from glm130b.report.differences import between, over_time
from glm130b.report.reading import read_run

RECORD = {"kind": "train", "step": 1, "samples": 4, "loss": 8.0}


def test_only_what_differs_is_shown(tmp_path: Path) -> None:
    configs = [
        "name: a\nmodel:\n  num_layers: 4\n  attention: prefix\n",
        "name: b\nmodel:\n  num_layers: 8\n  attention: prefix\nseed: 1\n",
        "",
    ]
    runs = [
        read_run(write_run(tmp_path / str(index), [RECORD], config=config), name=str(index))
        for index, config in enumerate(configs)
    ]
    assert between(runs) == [("model.num_layers", (4, 8, None)), ("seed", (None, 1, None))]
    assert between(runs[:1]) == []


def test_changes_of_restarts_come_from_the_events(tmp_path: Path) -> None:
    changes = {"optimizer.weight_decay": [0.1, 0.0], "odd": 3}
    events = [
        {"step": 7, "name": "resume", "message": "", "details": {"changes": changes}},
        {"step": 8, "name": "resume", "message": "", "details": {"changes": 3}},
        {"step": 9, "name": "loss", "message": "", "details": {"changes": changes}},
    ]
    run = read_run(write_run(tmp_path, [RECORD], events=events), name="run")
    assert over_time(run) == [(7, "optimizer.weight_decay", 0.1, 0.0)]
