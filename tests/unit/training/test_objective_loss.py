"""The loss of rows and its report per objective."""

import math
from collections.abc import Sequence
from datetime import timedelta

import pytest
import torch
from torch import Tensor, nn

from glm130b.data.batch import MicroBatch, collate
from glm130b.data.dataset import OBJECTIVES
from glm130b.environment import Launch
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.model.segments import PackedSegments
from glm130b.parallel.device import open_device
from glm130b.parallel.pipeline import LossFunction
from glm130b.parallel.topology import connect, disconnect
from glm130b.training.objective_loss import forward_step, mean_losses, sums_by_objective
from tests.harness.pool import run_distributed
from tests.harness.synthetic import SyntheticRows, small_config

SHRINK = ShrinkFactors(input_side=0.25, logit_side=0.5)
Rows = Sequence[tuple[float, str]]


class Stage(nn.Module):
    """A last stage that returns given token losses and keeps what it was called with."""

    def __init__(self, token_losses_BS: Tensor) -> None:
        super().__init__()
        self.token_losses_BS = token_losses_BS
        self.inputs: tuple[object, ...] = ()

    def forward(self, *inputs: object) -> Tensor:
        self.inputs = inputs
        return self.token_losses_BS


def two_rows() -> MicroBatch:
    """A [MASK] row with ten loss tokens and a [gMASK] row with twenty-one."""
    return collate([SyntheticRows()[1], SyntheticRows()[2]])


def losses_of(batch: MicroBatch, token_losses_BS: Tensor) -> tuple[Stage, Tensor, LossFunction]:
    stage = Stage(token_losses_BS)
    output, loss = forward_step(torch.device("cpu"), SHRINK)(iter([batch]), stage)
    return stage, output, loss


def test_the_stage_gets_the_whole_micro_batch() -> None:
    batch = two_rows()
    stage, output, _ = losses_of(batch, torch.ones(2, 32))
    tokens_BS, positions_B2S, segments, targets_BS, shrink = stage.inputs
    assert output is stage.token_losses_BS
    assert tokens_BS is batch.tokens_BS
    assert positions_B2S is batch.positions_B2S
    assert targets_BS is batch.targets_BS
    assert segments == PackedSegments(batch.segments)
    assert shrink == SHRINK


def test_a_row_weighs_the_same_however_few_tokens_it_predicts() -> None:
    batch = two_rows()
    mask_BS = batch.loss_weights_BS > 0
    assert mask_BS.sum(dim=1).tolist() == [10, 21]
    token_losses_BS = torch.rand(2, 32, generator=torch.Generator().manual_seed(0))
    _, output, loss = losses_of(batch, token_losses_BS)
    value, report = loss(output)
    means = [token_losses_BS[row][mask_BS[row]].mean().item() for row in range(2)]
    assert value.item() == pytest.approx(sum(means) / 2)
    expected = {"mask": (means[0], 1), "smask": (0, 0), "gmask": (means[1], 1), "instruction": (0, 0)}
    for name, pair in zip(OBJECTIVES, report.tolist(), strict=True):
        assert pair == pytest.approx(expected[name])


def test_tokens_outside_the_loss_mask_count_for_nothing() -> None:
    batch = two_rows()
    token_losses_BS = torch.where(batch.loss_weights_BS > 0, 3.0, 1e6)
    _, output, loss = losses_of(batch, token_losses_BS)
    assert loss(output)[0].item() == pytest.approx(3.0)


def test_the_report_is_neither_the_loss_nor_part_of_its_graph() -> None:
    batch = collate([SyntheticRows()[1]])
    _, output, loss = losses_of(batch, torch.full((1, 32), 2.0, requires_grad=True))
    value, report = loss(output)
    assert not report.requires_grad
    with torch.no_grad():
        value.div_(8)  # Megatron's schedule divides in place
    assert report.sum(dim=0).tolist() == pytest.approx([2.0, 1.0])
    value.backward()


def test_sums_by_objective_are_exact() -> None:
    sums = sums_by_objective(torch.tensor([1.5, 2.0, 0.25]), ("instruction", "mask", "instruction"))
    assert sums.dtype == torch.float64
    assert dict(zip(OBJECTIVES, sums.tolist(), strict=True)) == {
        "mask": [2.0, 1.0],
        "smask": [0.0, 0.0],
        "gmask": [0.0, 0.0],
        "instruction": [1.75, 2.0],
    }


def means(launch: Launch, tensor: int, micro_size: int, rows: Rows) -> dict[str, float]:
    """``mean_losses`` when each data-parallel rank has its share of the rows in micro-batches of ``micro_size``."""
    parallel = small_config(parallel={"tensor": tensor, "data": launch.world_size // tensor}).parallel
    topology = connect(
        parallel, device=open_device(0), rank=launch.rank, world_size=launch.world_size, timeout=timedelta(minutes=1)
    )
    groups = [rows[first : first + micro_size] for first in range(0, len(rows), micro_size)]
    reports = [
        sums_by_objective(torch.tensor([loss for loss, _ in group]), [objective for _, objective in group])
        for group in groups[topology.data.rank :: topology.data.size]
    ]
    losses = mean_losses(reports, topology)
    disconnect()
    return losses


def test_means_do_not_depend_on_ranks_or_micro_batches() -> None:
    rows = [(0.5 + 0.375 * row, ("gmask", "mask", "gmask", "instruction")[row % 4]) for row in range(8)]
    by_objective = {name: [loss for loss, objective in rows if objective == name] for name in OBJECTIVES}
    expected = {"loss": sum(loss for loss, _ in rows) / 8} | {
        f"loss/{name}": sum(losses) / len(losses) for name, losses in by_objective.items() if losses
    }
    for tensor, world_size, micro_size in ((1, 1, 1), (1, 1, 8), (1, 2, 2), (1, 2, 4), (2, 4, 1)):
        for losses in run_distributed(means, world_size, tensor, micro_size, rows):
            assert losses == pytest.approx(expected, rel=1e-12)


def test_an_objective_that_one_rank_lacks_is_the_mean_of_the_others() -> None:
    rows = [(1.0, "mask"), (2.0, "mask"), (5.0, "gmask"), (7.0, "gmask")]
    first, second = run_distributed(means, 2, 1, 2, rows)
    assert first == second == {"loss": 3.75, "loss/mask": 1.5, "loss/gmask": 6.0}


def test_an_objective_that_nobody_has_is_left_out() -> None:
    losses = run_distributed(means, 1, 1, 1, [(1.0, "gmask"), (3.0, "gmask")])[0]
    assert losses == {"loss": 2.0, "loss/gmask": 2.0}
    assert all(math.isfinite(loss) for loss in losses.values())
