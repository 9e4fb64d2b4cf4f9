"""The door to DeepSpeed: whose state lies where, and what a step reports."""

import math
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel.topology import disconnect
from tests.harness.pool import run_distributed
from tests.harness.stage import in_layout
from tests.harness.synthetic import small_config
from tests.harness.training import live_run

PRECISIONS = ["fp32", "bf16", "fp16"]


def half_precision(dtype: str, **loss_scale: float) -> dict[str, Any]:
    return {"dtype": dtype, "loss_scale": {"initial_power": 8, **loss_scale}}


Held = list[tuple[str, int, int, int, dict[str, tuple[int, torch.dtype]]]]


def held_fragments(launch: Launch, config: RunConfig) -> tuple[int, Held]:
    """The stage's index, and (name, size, start, length, state) of every fragment here."""
    run = live_run(config, launch)
    names = {id(parameter): name for name, parameter in run.stage.named_parameters()}
    place = run.topology.tensor.rank + run.topology.tensor.size * run.topology.pipeline.rank
    held = []
    for f in run.engine.fragments():
        state = {name: (tensor.numel(), tensor.dtype) for name, tensor in f.state.items()}
        held.append((names[id(f.parameter)], f.parameter.numel(), f.start, len(f.state["master"]), state))
        flat = f.parameter.detach().flatten()[f.start : f.start + len(f.state["master"])]
        assert torch.equal(f.state["master"].to(flat.dtype), flat)  # the part that it says it is
    assert {name for name, *_ in held} <= set(names.values())
    disconnect()
    return place, held


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_fragments_of_a_data_group_cover_every_parameter_once(dtype: str, optimizer: str) -> None:
    sections = {"precision": half_precision(dtype), "optimizer": {"name": optimizer}}
    layout, stages = ("TP2 PP2 DP2", 4) if dtype == "fp16" and optimizer == "adamw" else ("TP1", 1)
    config, world_size = in_layout(small_config(**sections), layout)
    if layout == "TP1":
        config = config.model_copy(update={"parallel": config.parallel.model_copy(update={"data": 2})})
        world_size = 2
    owners: dict[tuple[int, str], Tensor] = {}
    ranks = run_distributed(held_fragments, world_size, config)
    for place, fragments in ranks:
        for name, size, start, length, state in fragments:
            assert length > 0
            owners.setdefault((place, name), torch.zeros(size, dtype=torch.int))[start : start + length] += 1
            assert state.keys() == ({"master", "exp_avg", "exp_avg_sq"} if optimizer == "adamw" else {"master"})
            assert set(state.values()) == {(length, torch.float32)}
    assert all((count == 1).all() for count in owners.values())
    assert len({place for place, _ in owners}) == stages
    names_by_place: dict[int, set[str]] = defaultdict(set)
    for place, name in owners:
        names_by_place[place].add(name)
    # Two layers a stage under PP2, all four without; embedding, and on the last stage the final LayerNorm's two.
    total = sum(len(names) for names in names_by_place.values())
    assert total == (2 * (2 * 12 + 1 + 2 * 12 + 2 + 1) if stages == 4 else 4 * 12 + 1 + 2)
    assert all(fragments for _, fragments in ranks)


def published(launch: Launch, config: RunConfig) -> bool:
    """Write new masters through the fragments; whether both ranks' models hold them all, rounded."""
    run = live_run(config, launch)
    for fragment in run.engine.fragments():
        size = len(fragment.state["master"])
        fragment.state["master"].copy_(torch.arange(fragment.start, fragment.start + size) / 1000)
    run.engine.publish_master_weights()
    expected = [torch.arange(p.numel()).div(1000).to(p.dtype) for p in run.stage.parameters()]
    disconnect()
    return all(torch.equal(p.detach().flatten(), e) for p, e in zip(run.stage.parameters(), expected, strict=True))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_published_masters_reach_every_rank(dtype: str) -> None:
    config = small_config(precision=half_precision(dtype), parallel={"data": 2})
    assert run_distributed(published, 2, config) == [True, True]


def counters_back_and_forth(launch: Launch, config: RunConfig) -> list[dict[str, Any]]:
    """Counters of a fresh engine, after two steps, after going back, and after going forward again."""
    run = live_run(config, launch)
    seen = [run.engine.counters()]
    run.take_steps(2)
    seen.append(run.engine.counters())
    for counters in seen[:2]:
        run.engine.restore_counters(counters)
        seen.append(run.engine.counters())
    disconnect()
    return seen


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_counters_go_out_and_come_back(dtype: str) -> None:
    """In fp16 at a scale of 2**32 both steps overflow, so that the scaler has something to tell."""
    config = small_config(precision=half_precision(dtype, initial_power=32, hysteresis=1))
    ((fresh, later, back, forth),) = run_distributed(counters_back_and_forth, 1, config)
    assert fresh["optimizer_step"] == back["optimizer_step"] == 0.0
    assert fresh["loss_scaler"] == back["loss_scaler"]
    assert later == forth
    if dtype == "fp16":
        assert fresh["loss_scaler"]["cur_scale"] == 2.0**32
        assert later["loss_scaler"]["cur_scale"] == 2.0**30
        assert later["optimizer_step"] == 0.0
    else:
        assert later == {"optimizer_step": 2.0, "loss_scaler": {}}


def one_step(launch: Launch, config: RunConfig, learning_rate: float) -> dict[str, Any]:
    """What one step does to the weights, beside what its gradient asks for."""
    run = live_run(config, launch)
    run.accumulate_gradients()
    before = torch.cat([p.detach().flatten() for p in run.stage.parameters()])
    gradient = torch.cat([run.engine.gradient_of(p).flatten().clone() for p in run.stage.parameters()])
    outcome = run.engine.step(learning_rate)
    after = torch.cat([p.detach().flatten() for p in run.stage.parameters()])
    cleared = all(p.grad is None or not p.grad.any() for p in run.stage.parameters())
    disconnect()
    return {"moved": after - before, "gradient": gradient, "outcome": outcome, "cleared": cleared}


@pytest.mark.parametrize("learning_rate", [0.0, 0.125])
def test_the_learning_rate_is_the_one_given(learning_rate: float) -> None:
    config = small_config(optimizer={"name": "sgd", "weight_decay": 0.0, "clip_gradient_norm": 1e6})
    (step,) = run_distributed(one_step, 1, config, learning_rate)
    torch.testing.assert_close(step["moved"], -learning_rate * step["gradient"], atol=2e-7, rtol=1e-5)
    assert step["outcome"].gradient_norm == pytest.approx(step["gradient"].norm().item(), rel=1e-5)
    assert (step["outcome"].applied, step["outcome"].loss_scale) == (True, 1.0)
    assert step["cleared"]


def test_the_gradient_is_clipped_to_its_norm() -> None:
    config = small_config(optimizer={"name": "sgd", "weight_decay": 0.0, "clip_gradient_norm": 0.01})
    (step,) = run_distributed(one_step, 1, config, 1.0)
    assert step["outcome"].gradient_norm > 0.1  # the norm before clipping
    assert step["moved"].norm().item() == pytest.approx(0.01, rel=1e-3)


def norm_of_a_large_gradient(launch: Launch, config: RunConfig) -> tuple[float, float]:
    """The reported norm and the exact one, of normal numbers in every gradient."""
    run = live_run(config, launch)
    run.accumulate_gradients()
    generator, square = torch.Generator().manual_seed(5), 0.0
    for parameter in run.stage.parameters():
        gradient = run.engine.gradient_of(parameter)
        square += gradient.copy_(torch.randn(gradient.shape, generator=generator)).double().square().sum().item()
    outcome = run.engine.step(0.1)
    disconnect()
    return outcome.gradient_norm, math.sqrt(square)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_norm_of_a_million_elements_keeps_its_digits(dtype: str) -> None:
    """DeepSpeed's own, in fp32, is off by 1e-5 of it and more in bf16."""
    config = small_config(precision=half_precision(dtype), model={"vocab_size": 2**17})
    ((reported, exact),) = run_distributed(norm_of_a_large_gradient, 1, config)
    assert reported == pytest.approx(exact, rel=1e-6)


def test_an_overflow_changes_nothing_but_the_scale() -> None:
    config = small_config(precision=half_precision("fp16", initial_power=32, hysteresis=1))
    (step,) = run_distributed(one_step, 1, config, 0.1)
    assert not step["moved"].any()
    outcome = step["outcome"]
    assert (outcome.applied, outcome.overflowed) == (False, True)
    assert (outcome.gradient_norm, outcome.embedding_gradient_norm) == (float("inf"), float("inf"))
    assert outcome.loss_scale == 2.0**31


def scale_and_whether_it_is_the_smallest(launch: Launch, config: RunConfig) -> list[tuple[float, bool]]:
    """Before the first step and after each of four, each of which a restart follows."""
    run = live_run(config, launch)
    seen = [(run.engine.loss_scale, run.engine.at_minimum_scale)]
    for _ in range(4):
        run.accumulate_gradients()
        assert run.engine.step(0.1).overflowed
        # A checkpoint of an older version says, too, that the run should end here.
        counters = run.engine.counters()
        run.engine.restore_counters(
            {**counters, "loss_scaler": {**counters["loss_scaler"], "raise_error_at_min_scale": True}}
        )
        seen.append((run.engine.loss_scale, run.engine.at_minimum_scale))
    disconnect()
    return seen


def test_an_overflow_at_the_smallest_scale_is_a_skipped_step_like_any_other() -> None:
    scale = {"initial_power": 32, "hysteresis": 1, "minimum": 2.0**31}
    config = small_config(precision=half_precision("fp16", **scale))
    (seen,) = run_distributed(scale_and_whether_it_is_the_smallest, 1, config)
    assert seen == [(2.0**32, False), *[(2.0**31, True)] * 4]


def test_other_formats_have_no_smallest_scale() -> None:
    config = small_config(precision=half_precision("bf16", minimum=256.0))
    assert run_distributed(is_at_minimum_scale, 1, config) == [False]


def is_at_minimum_scale(launch: Launch, config: RunConfig) -> bool:
    return live_run(config, launch).engine.at_minimum_scale


def statistics_of_steps(launch: Launch, config: RunConfig) -> list[set[str]]:
    """First words of the names after a vetoed step, one that does not read the weights, one that does, an overflow."""
    run = live_run(config, launch)
    steps = []
    for permitted, reads in ((False, True), (True, False), (True, True)):
        run.accumulate_gradients()
        steps.append(run.engine.step(0.1, permit=lambda _, yes=permitted: yes, read_weights=reads).statistics)
    run.accumulate_gradients()
    for parameter in run.stage.parameters():
        run.engine.gradient_of(parameter).fill_(math.inf)
    steps.append(run.engine.step(0.1, read_weights=True).statistics)
    disconnect()
    return [{name.split("/")[0] for name in statistics} for statistics in steps]


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_statistics_are_of_what_was_done(dtype: str) -> None:
    (seen,) = run_distributed(statistics_of_steps, 1, small_config(precision=half_precision(dtype)))
    gradients = {"gradient_norm", "embedding_gradient_norm"}
    assert seen == [gradients, gradients, gradients | {"parameter_norm", "update_ratio", "second_moment"}, set()]
