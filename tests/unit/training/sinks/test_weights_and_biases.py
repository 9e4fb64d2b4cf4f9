"""The real wandb, offline: its files appear, its run id stays, and it calls nobody."""

import math
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from glm130b.training.metrics import Record
from glm130b.training.sinks.weights_and_biases import WeightsAndBiases
from tests.harness.synthetic import small_config


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


def log_one_step(folder: Path, step: int) -> str:
    """The run id under which a step was logged."""
    config = small_config(logging={"wandb": "offline", "project": "tests"})
    sink = WeightsAndBiases(config, folder)
    assert wandb.run is not None
    run_id = wandb.run.id
    assert wandb.run.config["model"]["hidden_size"] == config.model.hidden_size
    values = {"loss": 2.5, "gradient_norm": math.inf}
    sink.write(Record(kind="train", step=step, samples=8 * step, values=values))
    sink.write(Record(kind="validation", step=step, samples=8 * step, values={"loss": 3.5}))
    sink.close()
    assert wandb.run is None
    return str(run_id)


def test_offline_files_one_run_id_and_no_network(tmp_path: Path, server: socket.socket) -> None:
    first = log_one_step(tmp_path, step=1)
    assert (tmp_path / "wandb_run_id").read_text() == first
    assert log_one_step(tmp_path, step=2) == first
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert folders
    assert all(f"-{first}" in folder.name for folder in folders)
    logged = b"".join(file.read_bytes() for file in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb")))
    for name in (b"train/loss", b"train/gradient_norm", b"validation/loss", b"samples"):
        assert name in logged
    with pytest.raises(BlockingIOError):
        server.accept()


def test_another_folder_is_another_run(tmp_path: Path, server: socket.socket) -> None:
    runs = [tmp_path / "one", tmp_path / "two"]
    for folder in runs:
        folder.mkdir()
    assert log_one_step(runs[0], step=1) != log_one_step(runs[1], step=1)
