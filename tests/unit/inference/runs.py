"""What the processes of the saved run do."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from glm130b.config.sections import RunConfig
from glm130b.data.batch import MicroBatch, collate
from glm130b.data.tokenizers.tokenizer import Tokenizer
from glm130b.environment import Launch
from glm130b.model.segments import PackedSegments
from glm130b.parallel.pipeline import LossFunction
from glm130b.parallel.topology import disconnect
from tests.harness.synthetic import SyntheticRows
from tests.harness.training import live_run


def rows() -> MicroBatch:
    """A row of each objective."""
    return collate([SyntheticRows()[sample] for sample in (1, 2, 3)])


def save_and_measure(launch: Launch, config: RunConfig, folder: Path) -> np.ndarray | None:
    """Take three steps, save, and compute the logits of ``rows`` [B, S, V / tensor]; None before the last stage."""
    run = live_run(config, launch)
    progress, _ = run.take_steps(3)
    run.store(folder / "checkpoints", Tokenizer.load(config.data.tokenizer).fingerprint).save(progress)
    reports = run.pipeline.evaluate(_logits, iter([rows()]), num_micro_batches=1, micro_size=len(rows().kinds))
    disconnect()
    return reports[0].numpy() if reports else None


def _logits(micro_batches: Iterator[MicroBatch], model: nn.Module) -> tuple[Tensor, LossFunction]:
    batch = next(micro_batches)
    output = model(batch.tokens_BS, batch.positions_B2S, PackedSegments(batch.segments))
    return output, lambda logits_BSV: (logits_BSV.mean(), logits_BSV)
