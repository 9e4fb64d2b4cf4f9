"""Parameters with several copies: each copy gets the whole gradient, and the norm counts one of them."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.stage import Stage
from glm130b.parallel.placement import build_stage
from glm130b.parallel.shared_gradients import sum_shared_gradients
from glm130b.parallel.topology import disconnect
from tests.harness.pool import run_distributed
from tests.harness.stage import in_layout, initial_stage, joined
from tests.harness.synthetic import small_config
from tests.harness.training import live_run

HEAD = "chunks.0.output_layer.weight"
WORDS = "chunks.0.embedding.word.weight"


def tied_weights(stage: Stage) -> list[nn.Parameter]:
    return [chunk.tied_weight for chunk in stage if chunk.tied_weight is not None]


def embedding_after_steps(launch: Launch, config: RunConfig) -> tuple[Tensor, Tensor]:
    """This rank's copy of the embedding before and after two steps."""
    run = live_run(config, launch)
    (tied,) = tied_weights(run.stage)
    before = tied.detach().clone()
    run.take_steps(2)
    after = tied.detach().clone()
    disconnect()
    return before, after


@pytest.mark.parametrize("virtual_stages", [1, 2])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_both_copies_of_the_embedding_take_the_same_steps(dtype: str, virtual_stages: int) -> None:
    parallel = {"tensor": 2, "pipeline": 2, "virtual_stages": virtual_stages}
    config = small_config(precision={"dtype": dtype}, parallel=parallel)
    first_0, first_1, last_0, last_1 = run_distributed(embedding_after_steps, 4, config)
    for first, last in ((first_0, last_0), (first_1, last_1)):
        assert torch.equal(first[0], last[0])
        assert torch.equal(first[1], last[1])
        assert not torch.equal(first[0], first[1])
    assert not torch.equal(first_0[1], first_1[1])  # two shards, not two copies


Summed = dict[str, float]


def summed(launch: Launch, config: RunConfig) -> Summed:
    """By name, what gradients of 1, 2, 3... on ranks 0, 1, 2... became, where they changed."""
    with joined(launch, config) as topology:
        stage, own = build_stage(config, topology), launch.rank + 1.0
        for parameter in stage.parameters():
            parameter.grad = torch.full_like(parameter, own)
        sum_shared_gradients(stage, topology, gradient_of=lambda parameter: parameter.grad)  # type: ignore[arg-type, return-value]
        values = {name: p.grad.unique().tolist() for name, p in stage.named_parameters()}  # type: ignore[union-attr]
        assert all(len(value) == 1 for value in values.values())
        return {name: value for name, (value,) in values.items() if value != own}


def test_the_embedding_is_summed_over_its_two_stages() -> None:
    assert run_distributed(summed, 1, small_config()) == [{}]
    four_stages = run_distributed(summed, 4, small_config(parallel={"pipeline": 4}))
    assert four_stages == [{WORDS: 5.0}, {}, {}, {HEAD: 5.0}]
    config, world_size = in_layout(small_config(), "TP2 PP2")
    assert run_distributed(summed, world_size, config) == [{WORDS: 4.0}, {WORDS: 6.0}, {HEAD: 4.0}, {HEAD: 6.0}]


def test_the_embedding_is_summed_over_the_chunks_that_hold_it() -> None:
    config = small_config(parallel={"pipeline": 2, "virtual_stages": 2})
    assert run_distributed(summed, 2, config) == [{WORDS: 3.0}, {"chunks.1.output_layer.weight": 3.0}]


def test_an_untied_embedding_and_its_projection_are_not_summed() -> None:
    config = small_config(model={"tie_embedding": False}, parallel={"pipeline": 2})
    assert run_distributed(summed, 2, config) == [{}, {}]


LAYER = [
    *(f"input_layernorm.{part}" for part in ("weight", "bias")),
    *(f"pre_mlp_layernorm.{part}" for part in ("weight", "bias")),
    "self_attention.linear_proj.bias",
    "mlp.linear_fc2.bias",
]
"""What sees a part of the sequence: the norms, and the biases that are added after a row-parallel product."""


def in_layers(chunk: int, names: list[str]) -> set[str]:
    """The names in both layers of a chunk."""
    return {f"chunks.{chunk}.decoder.layers.{layer}.{name}" for layer in range(2) for name in names}


def test_sequence_parallel_ranks_sum_what_sees_a_part_of_the_sequence() -> None:
    """Not the embedding's norm and tables: they see the whole sequence, before it is cut."""
    model = {"positions": "learned_2d", "max_positions": 32, "embedding_norm": True, "tie_embedding": False}
    parallel = {"tensor": 2, "pipeline": 2, "sequence_parallel": True}
    ranks = run_distributed(summed, 4, small_config(model=model, parallel=parallel))
    final = {f"chunks.0.decoder.final_layernorm.{part}" for part in ("weight", "bias")}
    for (first, second), total in ((ranks[:2], 3.0), (ranks[2:], 7.0)):
        assert first == second
        assert set(first.values()) == {total}
    assert set(ranks[0]) == in_layers(0, LAYER)
    assert set(ranks[2]) == in_layers(0, LAYER) | final


def test_sequence_parallel_sums_reach_every_chunk_and_the_embedding_its_other_copy() -> None:
    parallel = {"tensor": 2, "pipeline": 2, "virtual_stages": 2, "sequence_parallel": True}
    config = small_config(model={"num_layers": 8, "norm_placement": "sandwich", "biases": False}, parallel=parallel)
    first, _, last, _ = run_distributed(summed, 4, config)
    norms = ("input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm")
    split = in_layers(0, [f"{norm}.weight" for norm in norms]) | in_layers(1, [f"{norm}.weight" for norm in norms])
    assert first == {**dict.fromkeys(split, 3.0), WORDS: 4.0}
    split.add("chunks.1.decoder.final_layernorm.weight")
    assert last == {**dict.fromkeys(split, 7.0), "chunks.1.output_layer.weight": 4.0}


def marks(launch: Launch, config: RunConfig) -> list[str]:
    with initial_stage(launch, config) as stage:
        return [name for name, p in stage.named_parameters() if getattr(p, "ds_pipe_replicated", False)]


@pytest.mark.parametrize(
    ("sections", "last"),
    [
        ({}, [HEAD]),
        ({"parallel": {"virtual_stages": 2}}, ["chunks.1.output_layer.weight"]),
        ({"model": {"tie_embedding": False}}, []),
    ],
    ids=["tied", "virtual stages", "untied"],
)
def test_only_the_last_stages_copy_is_marked(sections: dict[str, dict[str, Any]], last: list[str]) -> None:
    sections = {**sections, "parallel": {"pipeline": 2, **sections.get("parallel", {})}}
    assert run_distributed(marks, 2, small_config(**sections)) == [[], last]


def test_one_process_holds_no_copy() -> None:
    assert run_distributed(marks, 1, small_config()) == [[]]


def norms(launch: Launch, config: RunConfig) -> tuple[float, float, float, float]:
    """The norm that the engine gives, the one that DeepSpeed clips by, that of the gradients without the last stage's
    projection, and with it."""
    run = live_run(config, launch)
    run.accumulate_gradients()
    squares = torch.zeros(2)
    for name, parameter in run.stage.named_parameters():
        square = run.engine.gradient_of(parameter).float().square().sum()
        squares += torch.tensor([0.0 if name.endswith("output_layer.weight") else 1.0, 1.0]) * square
    dist.all_reduce(squares)
    ours = run.engine.step(0.0).gradient_norm
    clipped_by = float(run.engine._optimizer._global_grad_norm)
    disconnect()
    return ours, clipped_by, squares[0].sqrt().item(), squares[1].sqrt().item()


@pytest.mark.parametrize("virtual_stages", [1, 2])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_norm_counts_the_tied_embedding_once(dtype: str, virtual_stages: int) -> None:
    parallel = {"pipeline": 2, "virtual_stages": virtual_stages}
    config = small_config(precision={"dtype": dtype}, parallel=parallel)
    for ours, clipped_by, once, twice in run_distributed(norms, 2, config):
        assert ours == pytest.approx(once, rel=1e-5)
        assert clipped_by == pytest.approx(once, rel=1e-5)
        assert twice > 1.05 * once


def test_the_norm_counts_an_untied_projection_too() -> None:
    config = small_config(model={"tie_embedding": False}, parallel={"pipeline": 2})
    for ours, clipped_by, without, with_it in run_distributed(norms, 2, config):
        assert ours == pytest.approx(with_it, rel=1e-5)
        assert clipped_by == pytest.approx(with_it, rel=1e-5)
        assert with_it > 1.05 * without
