"""The real wandb, offline: what its files hold, that its run id stays, and that it calls nobody."""

import json
import math
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from glm130b.training.journal import Event
from glm130b.training.metrics import Record
from glm130b.training.sinks.weights_and_biases import WeightsAndBiases
from tests.harness.synthetic import small_config
from tests.harness.wandb_file import records

FACTS = {"installed": {"torch": "2.10", "source": "0123"}, "world_size": 768, "hosts": ["node1", "node2"]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where wandb would send its data; nobody answers there."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        yield listening
    wandb.teardown()


def opened(folder: Path, *, events: Counter[str] | None = None, **logging: Any) -> WeightsAndBiases:
    config = small_config(logging={"wandb": "offline", "project": "tests", **logging})
    return WeightsAndBiases(config, folder, mode="offline", facts=FACTS, events_so_far=events or {})


def train_record(step: int) -> Record:
    values = {"loss": 2.5, "gradient_norm": math.inf, "gradient_norm/layer.1": 1.0, "gradient_norm/layer.0": 4.0}
    return Record(kind="train", step=step, samples=8 * step, values=values, labels={"slowest_host": "node1"})


def folders(folder: Path) -> list[Path]:
    wandb.teardown()  # its own process writes, and has not written everything when a run is finished
    return sorted((folder / "wandb").glob("offline-run-*"))


def entries(folder: Path, kind: str) -> list[Any]:
    """What wandb wrote of one kind."""
    return [getattr(record, kind) for record in records(folder) if record.WhichOneof("record_type") == kind]


def items(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Of the history its rows, of the config and the summary their updates."""
    lists = [entry.item if kind == "history" else entry.update for entry in entries(folder, kind)]
    return [
        {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in updates} for updates in lists if updates
    ]


def test_a_restart_continues_the_run_and_nobody_is_called(tmp_path: Path, server: socket.socket) -> None:
    for step in (1, 2):
        sink = opened(tmp_path)
        sink.begin(step - 1)
        sink.write(train_record(step))
        sink.write(Record(kind="validation", step=step, samples=8 * step, values={"loss": 3.5}))
        sink.close()
    run_id = (tmp_path / "wandb_run_id").read_text()
    assert {file.name for folder in folders(tmp_path) for file in folder.glob("*.wandb")} == {f"run-{run_id}.wandb"}
    runs = [run for folder in folders(tmp_path) for run in entries(folder, "run")]
    assert runs
    assert all(run.run_id == run_id and run.resume for run in runs), "a sync would not append"
    with pytest.raises(BlockingIOError):
        server.accept()


def test_a_first_start_that_found_the_disk_full_does_not_spoil_the_id(tmp_path: Path) -> None:
    (tmp_path / "wandb_run_id").write_text("")
    opened(tmp_path).close()
    assert len((tmp_path / "wandb_run_id").read_text()) == 8


def test_what_a_run_tells(tmp_path: Path, server: socket.socket) -> None:
    sink = opened(tmp_path, events=Counter({"rewound": 2}))
    sink.write(train_record(3))
    sink.tell(Event("rewound", 9, "goes on from step-3"))
    sink.tell(Event("resume", 9, "is nothing to look at"))
    sink.close()
    (folder,) = folders(tmp_path)
    step, rewound, _ = items(folder, "history")
    assert {key: step[key] for key in ("step", "samples", "train/loss", "train/gradient_norm/layer.1")} == {
        "step": 3,
        "samples": 24,
        "train/loss": 2.5,
        "train/gradient_norm/layer.1": 1.0,
    }
    assert step["train/slowest_host"] == "node1"
    assert not any("layers" in name for name in step), "media are off unless asked for"
    assert (rewound["events/rewound"], rewound["step"], rewound["samples"]) == (3, 9, 24)
    assert {"last/rewound": "step 9: rewound: goes on from step-3"} in items(folder, "summary")
    config = {
        update.key: json.loads(update.value_json) for run in entries(folder, "run") for update in run.config.update
    }
    for update in items(folder, "config"):
        config |= update
    assert config["facts"] == FACTS
    assert config["model"]["hidden_size"] == 32
    metric = entries(folder, "metric")[-1]
    assert (metric.glob_name, metric.step_metric) == ("*", "samples")
    (alert,) = entries(folder, "alert")
    assert (alert.title, alert.level) == ("small: rewound", "WARN")


def test_events_before_the_first_record_stand_at_it(tmp_path: Path, server: socket.socket) -> None:
    sink = opened(tmp_path)
    sink.tell(Event("resume", 2, "told before anything is measured"))
    sink.begin(2)
    sink.write(train_record(3))
    sink.close()
    resume, _ = items(folders(tmp_path)[0], "history")
    assert (resume["events/resume"], resume["step"], resume["samples"]) == (1, 2, 24)


def test_events_without_a_record_stand_nowhere_on_the_axis(tmp_path: Path, server: socket.socket) -> None:
    sink = opened(tmp_path)
    sink.tell(Event("resume", 2, "and the start fails"))
    sink.close()
    (folder,) = folders(tmp_path)
    assert items(folder, "history") == []
    assert {"last/resume": "step 2: resume: and the start fails"} in items(folder, "summary")


def test_alerts_can_be_off_and_media_on(tmp_path: Path, server: socket.socket) -> None:
    sink = opened(tmp_path, wandb_alerts=False, wandb_media=True)
    sink.write(train_record(1))
    sink.tell(Event("checkpoint failed", 1, "no space"))
    sink.close()
    (folder,) = folders(tmp_path)
    assert entries(folder, "alert") == []
    histogram = {
        name.rpartition("/")[2]: value for name, value in items(folder, "history")[0].items() if "layers/" in name
    }
    assert histogram["values"] == [1000, 250], "layers in their order, in thousandths of the largest"
    assert histogram["bins"] == [0, 1, 2]


def test_nothing_of_the_machine_is_captured(tmp_path: Path, server: socket.socket) -> None:
    sink = opened(tmp_path)
    settings = sink._run.settings
    sink.close()
    assert settings.console == "off"
    assert settings.disable_git
    assert settings.disable_job_creation
    assert not settings.save_code
    assert not list(folders(tmp_path)[0].rglob("*.py"))
    assert not list(folders(tmp_path)[0].rglob("requirements.txt"))


def test_stop_on_its_page_saves_and_ends_the_run(tmp_path: Path, server: socket.socket) -> None:
    sink = opened(tmp_path)
    stop = sink._run.settings.stop_fn
    assert stop is not None
    stop()
    sink.close()
    assert (tmp_path / "stop").exists()


def test_another_folder_is_another_run(tmp_path: Path, server: socket.socket) -> None:
    ids = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        opened(tmp_path / name).close()
        ids.add((tmp_path / name / "wandb_run_id").read_text())
    assert len(ids) == 2


ONLINE = """
import sys, time
from pathlib import Path
from glm130b.training.metrics import Record
from glm130b.training.sinks.opening import open_recorder
from tests.harness.synthetic import small_config

recorder = open_recorder(small_config(logging={"wandb": "online"}), Path(sys.argv[1]), facts={})
recorder.begin(0)
for step in range(1, 4):
    recorder.write(Record("train", step, 8 * step, {"loss": 1.0}))
recorder.close()
"""


@pytest.mark.full
@pytest.mark.timeout(120)
def test_a_run_without_network_ends_and_keeps_its_curves(tmp_path: Path) -> None:
    """Online, with nobody at the server's address: a process of its own, for wandb's part of its end."""
    environment = {**os.environ, "WANDB_BASE_URL": "http://127.0.0.1:1", "WANDB_API_KEY": "0" * 40}
    run = subprocess.run(
        [sys.executable, "-c", ONLINE, str(tmp_path)], check=True, env=environment, capture_output=True, text=True
    )
    assert "Weights & Biases: AuthenticationError" in run.stderr
    assert "goes on offline; `wandb sync" in run.stderr
    (folder,) = folders(tmp_path)
    assert [item["step"] for item in items(folder, "history")] == [1, 2, 3]
