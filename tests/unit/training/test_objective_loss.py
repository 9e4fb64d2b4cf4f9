"""The loss of rows and its report per objective and source."""

import math
from collections.abc import Sequence
from datetime import timedelta

import pytest
import torch
from torch import Tensor, nn

from glm130b.data.batch import MicroBatch, collate
from glm130b.data.mixing.shares import Kind
from glm130b.environment import Launch
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.model.segments import PackedSegments
from glm130b.parallel.device import open_device
from glm130b.parallel.pipeline import LossFunction
from glm130b.parallel.topology import connect, disconnect
from glm130b.training.objective_loss import LossSums, RowLosses, forward_step, mean_losses
from tests.harness.pool import run_distributed
from tests.harness.synthetic import SyntheticRows, small_config

SHRINK = ShrinkFactors(input_side=0.25, logit_side=0.5)
Rows = Sequence[tuple[float, Kind]]
MASK, GMASK, CHINESE = Kind("mask", "english"), Kind("gmask", "english"), Kind("gmask", "chinese")
INSTRUCTION = Kind("instruction", "english")


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
    assert report.losses_B.tolist() == pytest.approx(means)
    assert report.kinds == (MASK, GMASK)


def test_tokens_outside_the_loss_mask_count_for_nothing() -> None:
    batch = two_rows()
    token_losses_BS = torch.where(batch.loss_weights_BS > 0, 3.0, 1e6)
    _, output, loss = losses_of(batch, token_losses_BS)
    assert loss(output)[0].item() == pytest.approx(3.0)


def test_the_report_is_neither_the_loss_nor_part_of_its_graph() -> None:
    batch = collate([SyntheticRows()[1]])
    _, output, loss = losses_of(batch, torch.full((1, 32), 2.0, requires_grad=True))
    value, report = loss(output)
    assert not report.losses_B.requires_grad
    with torch.no_grad():
        value.div_(8)  # Megatron's schedule divides in place
    assert report.losses_B.tolist() == pytest.approx([2.0])
    value.backward()


def test_a_row_is_added_to_its_objective_and_its_source() -> None:
    losses = LossSums(small_config())
    reports = [
        RowLosses(torch.tensor([1.5, 2.0]), (INSTRUCTION, MASK)),
        RowLosses(torch.tensor([0.25, 8.0]), (INSTRUCTION, CHINESE)),
    ]
    sums = losses.of(reports)
    assert losses.means(sums) == {
        "loss": 11.75 / 4,
        "loss/mask": 2.0,
        "loss/gmask": 8.0,
        "loss/instruction": 0.875,
        "loss/text.english": 2.0,
        "loss/text.chinese": 8.0,
        "loss/instructions.english": 0.875,  # another source than the text of that name
    }
    assert losses.means([2 * number for number in sums]) == losses.means(sums)
    assert losses.means(losses.of([])) == {}


def means(launch: Launch, tensor: int, micro_size: int, rows: Rows) -> dict[str, float]:
    """``mean_losses`` when each data-parallel rank has its share of the rows in micro-batches of ``micro_size``."""
    parallel = small_config(parallel={"tensor": tensor, "data": launch.world_size // tensor}).parallel
    topology = connect(
        parallel, device=open_device(0), rank=launch.rank, world_size=launch.world_size, timeout=timedelta(minutes=1)
    )
    groups = [rows[first : first + micro_size] for first in range(0, len(rows), micro_size)]
    reports = [
        RowLosses(torch.tensor([loss for loss, _ in group]), tuple(kind for _, kind in group))
        for group in groups[topology.data.rank :: topology.data.size]
    ]
    losses = mean_losses(reports, LossSums(small_config()), topology)
    disconnect()
    return dict(losses)


def test_means_do_not_depend_on_ranks_or_micro_batches() -> None:
    rows = [(0.5 + 0.375 * row, (CHINESE, MASK, GMASK, INSTRUCTION)[row % 4]) for row in range(8)]
    groups: dict[str, list[float]] = {}
    for loss, kind in rows:
        for name in ("loss", f"loss/{kind.objective}", f"loss/{kind.section}.{kind.source}"):
            groups.setdefault(name, []).append(loss)
    expected = {name: sum(losses) / len(losses) for name, losses in groups.items()}
    assert len(expected) == 7
    for tensor, world_size, micro_size in ((1, 1, 1), (1, 1, 8), (1, 2, 2), (1, 2, 4), (2, 4, 1)):
        for losses in run_distributed(means, world_size, tensor, micro_size, rows):
            assert losses == pytest.approx(expected, rel=1e-12)


def test_an_objective_that_one_rank_lacks_is_the_mean_of_the_others() -> None:
    rows = [(1.0, MASK), (2.0, MASK), (5.0, CHINESE), (7.0, CHINESE)]
    first, second = run_distributed(means, 2, 1, 2, rows)
    assert (
        first
        == second
        == {
            "loss": 3.75,
            "loss/mask": 1.5,
            "loss/gmask": 6.0,
            "loss/text.english": 1.5,
            "loss/text.chinese": 6.0,
        }
    )


def test_an_objective_that_nobody_has_is_left_out() -> None:
    losses = run_distributed(means, 1, 1, 1, [(1.0, GMASK), (3.0, GMASK)])[0]
    assert losses == {"loss": 2.0, "loss/gmask": 2.0, "loss/text.english": 2.0}
    assert all(math.isfinite(loss) for loss in losses.values())
