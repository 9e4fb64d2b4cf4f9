"""What stands in run.json, and that restoring gives it back."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import deepspeed
import megatron.core
import pytest
import torch

from glm130b import __version__
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel.topology import disconnect
from glm130b.training.progress import Progress
from tests.harness.pool import run_distributed
from tests.harness.synthetic import small_config
from tests.harness.training import live_run

FP16 = {"dtype": "fp16", "loss_scale": {"initial_power": 12, "window_steps": 2}}


def save(launch: Launch, config: RunConfig, folder: Path) -> tuple[Progress, dict[str, Any]]:
    """Three steps, then a checkpoint: the progress and the engine's counters."""
    run = live_run(config, launch)
    progress, _ = run.take_steps(3)
    run.store(folder).save(progress)
    counters = run.engine.counters()
    disconnect()
    return progress, counters


def restore(launch: Launch, config: RunConfig, folder: Path) -> tuple[Progress, dict[str, Any]]:
    run = live_run(config, launch)
    newest = CheckpointFolder(folder).latest()
    assert newest is not None
    progress = run.store(folder).continued_from(newest)
    counters = run.engine.counters()
    disconnect()
    return progress, counters


def test_run_json_tells_what_the_run_was(tmp_path: Path) -> None:
    config = small_config()
    progress, counters = run_distributed(save, 1, config, tmp_path)[0]
    described = json.loads((tmp_path / "step-00000003" / "run.json").read_text())
    assert described["progress"] == json.loads(json.dumps(asdict(progress)))
    assert (progress.step, progress.samples, progress.applied_updates) == (3, 24, 3)
    assert progress.clipped_updates + progress.unclipped_updates == 3
    assert described["counters"] == counters == {"optimizer_step": 3.0, "loss_scaler": {}}
    assert RunConfig.model_validate_json(json.dumps(described["config"])) == config
    assert len(described["versions"].pop("source")) == 16
    assert described["versions"] == {
        "glm130b": __version__,
        "torch": torch.__version__,
        "megatron-core": megatron.core.__version__,
        "deepspeed": deepspeed.__version__,
    }


@pytest.mark.parametrize("precision", [{"dtype": "fp32"}, FP16])
def test_restoring_gives_progress_and_counters_back(tmp_path: Path, precision: dict[str, Any]) -> None:
    config = small_config(precision=precision)
    saved = run_distributed(save, 1, config, tmp_path)[0]
    assert saved[0].samples == 24
    assert bool(saved[1]["loss_scaler"]) == (precision["dtype"] == "fp16")
    assert run_distributed(restore, 1, config, tmp_path)[0] == saved
