"""Two copies of one embedding: the same step for both, and one of them in the gradient norm."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.data.batches import micro_batches
from glm130b.launcher import Launch
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.parallel.tied_embedding import mark_tied_copy, sum_tied_gradients
from glm130b.parallel.topology import disconnect
from glm130b.pretrain import build_model
from glm130b.training.objective_loss import forward_step
from tests.harness.pool import run_distributed
from tests.harness.stage import in_layout, joined
from tests.harness.synthetic import SyntheticRows, small_config
from tests.harness.training import live_run


def embedding_after_steps(launch: Launch, config: RunConfig) -> tuple[Tensor, Tensor]:
    """This rank's copy of the embedding before and after two steps."""
    run = live_run(config, launch)
    assert run.model.tied_weight is not None
    before = run.model.tied_weight.detach().clone()
    run.take_steps(2)
    after = run.model.tied_weight.detach().clone()
    disconnect()
    return before, after


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_both_copies_take_the_same_steps(dtype: str) -> None:
    config, world_size = in_layout(small_config(precision={"dtype": dtype}), "TP2 PP2")
    first_0, first_1, last_0, last_1 = run_distributed(embedding_after_steps, world_size, config)
    for first, last in ((first_0, last_0), (first_1, last_1)):
        assert torch.equal(first[0], last[0])
        assert torch.equal(first[1], last[1])
        assert not torch.equal(first[0], first[1])
    assert not torch.equal(first_0[1], first_1[1])  # two shards, not two copies


def summed(launch: Launch, config: RunConfig) -> list[float]:
    """Gradients 1, 2, 3... on ranks 0, 1, 2..., after the sum; and whether the copy is marked."""
    with joined(launch, config) as topology:
        model = build_model(config, topology)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, launch.rank + 1.0)
        sum_tied_gradients(model, topology, gradient_of=lambda parameter: parameter.grad)  # type: ignore[arg-type, return-value]
        others = {p.grad.unique().item() for p in model.parameters() if p is not model.tied_weight}  # type: ignore[union-attr]
        assert others == {launch.rank + 1.0}
        return [] if model.tied_weight is None else model.tied_weight.grad.unique().tolist()  # type: ignore[union-attr]


def test_only_the_embedding_is_summed_and_only_over_the_two_stages() -> None:
    assert run_distributed(summed, 1, small_config()) == [[1.0]]
    assert run_distributed(summed, 4, small_config(parallel={"pipeline": 4})) == [[5.0], [], [], [5.0]]
    config, world_size = in_layout(small_config(), "TP2 PP2")
    assert run_distributed(summed, world_size, config) == [[4.0], [6.0], [4.0], [6.0]]


def marks(launch: Launch, config: RunConfig) -> list[str]:
    with joined(launch, config) as topology:
        model = build_model(config, topology)
        mark_tied_copy(model)
        return [name for name, p in model.named_parameters() if getattr(p, "ds_pipe_replicated", False)]


def test_only_the_last_stages_copy_is_marked() -> None:
    assert run_distributed(marks, 1, small_config()) == [[]]
    assert run_distributed(marks, 4, small_config(parallel={"pipeline": 4})) == [[], [], [], ["output_layer.weight"]]


def norms(launch: Launch, config: RunConfig) -> tuple[float, float, float]:
    """The norm that the engine gives, the norm over the gradients with the tied copy left out, and with it."""
    run = live_run(config, launch)
    rows: Iterator = micro_batches(
        SyntheticRows(),
        first_sample=0,
        batch_size=8,
        micro_size=2,
        data_rank=0,
        data_size=1,  # type: ignore[arg-type]
    )
    run.pipeline.train(forward_step(run.topology.device, ShrinkFactors()), rows, num_micro_batches=4, micro_size=2)
    squares = torch.zeros(2)
    for name, parameter in run.model.named_parameters():
        square = run.engine.gradient_of(parameter).float().square().sum()
        squares += torch.tensor([0.0 if name == "output_layer.weight" else 1.0, 1.0]) * square
    dist.all_reduce(squares)
    ours = run.engine.step(0.0).gradient_norm
    disconnect()
    return ours, squares[0].sqrt().item(), squares[1].sqrt().item()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_norm_counts_the_embedding_once(dtype: str) -> None:
    config, world_size = in_layout(small_config(precision={"dtype": dtype}), "PP2")
    for ours, once, twice in run_distributed(norms, world_size, config):
        assert ours == pytest.approx(once, rel=1e-5)
        assert twice > 1.05 * once
