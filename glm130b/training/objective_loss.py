"""The loss: mean over the loss tokens of each row, then mean over the rows; reported per objective and per source as
(sum, count) pairs.

A row's loss does not depend on which micro-batch, rank or layout it is in, so neither does the step's (GLM-130B paper,
section 2.2: every row weighs the same, however few tokens it predicts).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from glm130b.config.sections import RunConfig
from glm130b.data.batch import MicroBatch
from glm130b.data.dataset import OBJECTIVES
from glm130b.data.mixing.shares import Kind
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.model.segments import PackedSegments
from glm130b.parallel.pipeline import ForwardStep, LossFunction
from glm130b.parallel.topology import Topology
from glm130b.training.tally import add_up, means


@dataclass(frozen=True)
class RowLosses:
    """What a micro-batch reports. It is read when the step's work is done: until then nothing waits for the device."""

    losses_B: Tensor
    """fp32 [B], outside the graph."""
    kinds: tuple[Kind, ...]
    """Per row."""


def forward_step(device: torch.device, shrink: ShrinkFactors) -> ForwardStep:
    """What the pipeline does with one micro-batch: this stage's forward pass, and on the last stage the loss of its
    rows, which it reports as ``RowLosses``."""

    def run(micro_batches: Iterator[MicroBatch], model: nn.Module) -> tuple[Tensor, LossFunction]:
        batch = next(micro_batches).to(device)
        output = model(batch.tokens_BS, batch.positions_B2S, PackedSegments(batch.segments), batch.targets_BS, shrink)

        def loss(token_losses_BS: Tensor) -> tuple[Tensor, RowLosses]:
            row_losses_B = (token_losses_BS * batch.loss_weights_BS).sum(dim=1)
            return row_losses_B.mean(), RowLosses(row_losses_B.detach(), batch.kinds)

        return output, loss

    return run


class LossSums:
    """``loss``, ``loss/<objective>`` and ``loss/<section>.<source>`` of a run, in the config's order, so that every
    process adds up the same names."""

    def __init__(self, config: RunConfig) -> None:
        sources = [
            f"{section}.{name}" for section in ("text", "instructions") for name in getattr(config.data, section)
        ]
        self._names = ("loss", *(f"loss/{part}" for part in (*OBJECTIVES, *sources)))

    def of(self, reports: Sequence[RowLosses]) -> list[float]:
        """Sum of row losses and number of rows of every name. Waits for the device."""
        losses = torch.cat([report.losses_B for report in reports]).tolist() if reports else []
        pairs = {name: [0.0, 0.0] for name in self._names}
        for kind, loss in zip(chain.from_iterable(report.kinds for report in reports), losses, strict=True):
            for name in ("loss", f"loss/{kind.objective}", f"loss/{kind.section}.{kind.source}"):
                pairs[name][0] += loss
                pairs[name][1] += 1
        return list(chain.from_iterable(pairs.values()))

    def means(self, sums: Sequence[float]) -> Mapping[str, float]:
        """Mean over rows of every name that had some, of what ``of`` gave or of the sum of several."""
        return means(self._names, sums)


def mean_losses(reports: Sequence[RowLosses], losses: LossSums, topology: Topology) -> Mapping[str, float]:
    """Mean losses over all rows of the job, the same on every rank. One collective."""
    sums, _ = add_up(losses.of(spoken_for(reports, topology)), (), topology)
    return losses.means(sums)


def spoken_for(reports: Sequence[RowLosses], topology: Topology) -> Sequence[RowLosses]:
    """The reports that this process adds: those of one process of each replica, since its tensor ranks report alike."""
    return reports if topology.reports_loss else ()
