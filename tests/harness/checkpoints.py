"""Checkpoints as a run writes them, of two small tensors, made without a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from glm130b.checkpoint.description import Description, plain
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.planner import Slice, SliceSavePlanner
from glm130b.checkpoint.storage import save_slices
from glm130b.config.sections import RunConfig
from glm130b.training.progress import Progress
from tests.harness.synthetic import small_config

SHAPES = {"master/weight": (6, 4), "master/bias": (5,), "exp_avg/weight": (6, 4), "exp_avg/bias": (5,)}
"""Each is saved in chunks of two rows."""


def save_small(folder: CheckpointFolder, *steps: int, config: RunConfig | None = None, **described: Any) -> Path:
    """Save at each of the steps, 8 samples apart; the last checkpoint. Keywords are of its Description."""
    folder.create()
    for step in steps:
        description = Description(
            **{
                "progress": Progress(step=step, samples=8 * step),
                "counters": {"optimizer_step": float(step), "loss_scaler": {}},
                "config": plain(config or small_config()),
                "tokenizer": "abc",
                **described,
            }
        )
        save_slices(SliceSavePlanner(list(_slices(step))), folder, step=step, description=description.to_json())
    return folder.at(steps[-1])


def _slices(step: int) -> Iterator[Slice]:
    for key, shape in SHAPES.items():
        whole = torch.full(shape, float(step))
        for row in range(0, shape[0], 2):
            yield Slice(key, shape, (row, *(0 for _ in shape[1:])), whole[row : row + 2], is_owner=True)
