"""The door to Weights & Biases."""

import json
import secrets
from pathlib import Path
from typing import Any

import wandb

from glm130b.config.sections import RunConfig
from glm130b.training.metrics import Record


class WeightsAndBiases:
    """One wandb run a training run: the same run id after every restart, so that the curves continue.

    ``mode`` "offline" writes ``<folder>/wandb/offline-run-*`` and needs neither account nor network.
    """

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self._run = wandb.init(
            project=config.logging.project,
            name=config.name,
            id=_run_id(folder),
            resume="allow" if config.logging.wandb == "online" else None,
            mode=config.logging.wandb,
            dir=str(folder),
            config=json.loads(config.model_dump_json()),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("samples")
        self._run.define_metric("*", step_metric="samples")

    def write(self, record: Record) -> None:
        values: dict[str, Any] = {f"{record.kind}/{name}": value for name, value in record.values.items()}
        self._run.log(values | {"step": record.step, "samples": record.samples})

    def close(self) -> None:
        self._run.finish()


def _run_id(folder: Path) -> str:
    """The id kept in the run's folder, made at the first start."""
    file = folder / "wandb_run_id"
    if not file.exists():
        file.write_text(secrets.token_hex(4))
    return file.read_text().strip()
