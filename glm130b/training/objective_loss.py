"""The loss: mean over the loss tokens of each row, then mean over the rows; reported per objective as (sum, count)
pairs.

A row's loss does not depend on which micro-batch, rank or layout it is in, so neither does the step's (GLM-130B paper,
section 2.2: every row weighs the same, however few tokens it predicts).
"""

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glm130b.data.batch import MicroBatch
from glm130b.data.dataset import OBJECTIVES
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.model.segments import PackedSegments
from glm130b.parallel.pipeline import ForwardStep, LossFunction
from glm130b.parallel.topology import Topology


def forward_step(device: torch.device, shrink: ShrinkFactors) -> ForwardStep:
    """What the pipeline does with one micro-batch: this stage's forward pass, and on the last stage the loss of its
    rows."""

    def run(micro_batches: Iterator[MicroBatch], model: nn.Module) -> tuple[Tensor, LossFunction]:
        batch = next(micro_batches).to(device)
        output = model(batch.tokens_BS, batch.positions_B2S, PackedSegments(batch.segments), batch.targets_BS, shrink)

        def loss(token_losses_BS: Tensor) -> tuple[Tensor, Tensor]:
            row_losses_B = (token_losses_BS * batch.loss_weights_BS).sum(dim=1)
            return row_losses_B.mean(), sums_by_objective(row_losses_B.detach(), batch.objectives)

        return output, loss

    return run


def sums_by_objective(row_losses_B: Tensor, objectives: Sequence[str]) -> Tensor:
    """(sum of row losses, number of rows) of every objective, [objectives, 2] in fp64."""
    sums = torch.zeros(len(OBJECTIVES), 2, dtype=torch.float64, device=row_losses_B.device)
    # Made on the device it would wait for all that runs there.
    rows = torch.tensor([OBJECTIVES.index(objective) for objective in objectives])
    rows = rows.to(row_losses_B.device, non_blocking=True)
    pairs = torch.stack((row_losses_B.double(), torch.ones_like(row_losses_B, dtype=torch.float64)), dim=1)
    return sums.index_add_(0, rows, pairs)


def mean_losses(reports: Sequence[Tensor], topology: Topology) -> dict[str, float]:
    """Mean loss over all rows of the job, ``loss``, and of each objective that had rows, ``loss/<objective>``; the
    same on every rank.

    One collective: only one process of each replica contributes, the others add zeros.
    """
    sums = torch.zeros(len(OBJECTIVES), 2, dtype=torch.float64, device=topology.device)
    if topology.reports_loss:
        sums += torch.stack(list(reports)).sum(dim=0)
    dist.all_reduce(sums)
    total, rows = sums.sum(dim=0).tolist()
    by_objective = {f"loss/{name}": s / n for name, (s, n) in zip(OBJECTIVES, sums.tolist(), strict=True) if n}
    return {"loss": total / rows} | by_objective
