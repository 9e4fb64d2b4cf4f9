"""Every number of gradients and weights in a record against plain PyTorch, in every kind of layout."""

import itertools
import math
from functools import cache
from typing import Any

import pytest
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel.topology import disconnect
from glm130b.training.progress import Progress
from tests.harness.gradient_norms import PREFIXES, oracle_numbers
from tests.harness.pool import run_distributed
from tests.harness.rounding import norm_bound, value_error
from tests.harness.synthetic import small_config
from tests.harness.training import StepNumbers, initial_weights, live_run, train_steps

NUM_STEPS = 3
MODELS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_embedding": False},
    "tables": {"positions": "learned_2d", "max_positions": 32, "embedding_norm": True, "norm_placement": "sandwich"},
    "input side shrunk": {"shrink": {"alpha": {"start": 0.25, "end": 0.25}, "logit_side": False}},
    "not shrunk": {"shrink": {"alpha": {"start": 1.0, "end": 1.0}}},
}
SGD = {"name": "sgd", "learning_rate": {"peak": 0.3, "minimum": 0.3, "warmup_samples": 16, "decay_samples": 160}}
EVERYTHING = {"tensor": 2, "pipeline": 2, "data": 2, "virtual_stages": 2, "sequence_parallel": True}


def config_of(
    parallel: dict[str, Any],
    model: str = "tied",
    optimizer: str = "adamw",
    *,
    dtype: str = "fp32",
    accumulate_gradients_in_fp32: bool = True,
    initial_power: int = 8,
    window_steps: int = 2000,
) -> RunConfig:
    sections = dict(MODELS[model])
    shrink = sections.pop("shrink", small_config().model.embedding_gradient_shrink.model_dump())
    return small_config(
        model={**sections, "embedding_gradient_shrink": shrink},
        parallel=parallel,
        optimizer=SGD if optimizer == "sgd" else {},
        precision={
            "dtype": dtype,
            "accumulate_gradients_in_fp32": accumulate_gradients_in_fp32,
            "loss_scale": {"initial_power": initial_power, "window_steps": window_steps},
        },
        logging={"weights_every_steps": 1},
    )


@cache
def expected(model: str, optimizer: str) -> list[dict[str, float]]:
    config = config_of({}, model, optimizer)
    weights: dict[str, Tensor] = run_distributed(initial_weights, 1, config)[0]
    numbers = oracle_numbers(config, weights, NUM_STEPS)
    # Or norms before clipping and after could not be told apart.
    assert any(step["gradient_norm"] > config.optimizer.clip_gradient_norm for step in numbers)
    return numbers


def numbers_of(config: RunConfig, count: int = NUM_STEPS) -> list[list[StepNumbers]]:
    """Those of gradients and weights, of every rank."""
    grid = config.parallel
    world_size = grid.tensor * grid.pipeline * int(grid.data or 1)
    ranks = run_distributed(train_steps, world_size, config, count, timeout=100)
    return [[{k: v for k, v in step.items() if k.split("/")[0] in PREFIXES} for step in rank] for rank in ranks]


def check(config: RunConfig, model: str = "tied", optimizer: str = "adamw") -> None:
    """Every rank reports the oracle's numbers, all of them and no others; in half precision within its rounding."""
    dtype, layers = config.precision.dtype, config.model.num_layers
    within = 1e-5 if dtype == "fp32" else norm_bound(dtype, layers)
    ranks = numbers_of(config)
    for ours, theirs in zip(ranks[0], expected(model, optimizer), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            bound = within * value
            if "gradient_norm" in name and dtype != "fp32":  # what earlier updates rounded does not shrink with a part
                bound += within * theirs["gradient_norm"] / 20
            if name == "second_moment/embedding_max" and dtype != "fp32":
                bound = 6 * value_error(dtype, layers) * value  # one element, squared, three standard deviations
            if name == "second_moment/embedding_min":
                # The square of what nearly cancels: noise in half precision, and in fp32 no two digits are the same.
                bound = 0.05 * value if dtype == "fp32" else theirs["second_moment/embedding_max"]
            assert ours[name] == pytest.approx(value, abs=bound), name
    assert all(rank == ranks[0] for rank in ranks)


EVERY_DAY: list[tuple[dict[str, Any], str, str]] = [
    ({}, "tied", "adamw"),
    (EVERYTHING, "tied", "adamw"),
    (EVERYTHING, "tables", "sgd"),
    ({"pipeline": 2, "data": 2}, "untied", "adamw"),
    ({"data": 2, "zero_stage": 2}, "input side shrunk", "adamw"),
    ({"data": 2, "offload_optimizer": True}, "not shrunk", "sgd"),
]


@pytest.mark.parametrize(("parallel", "model", "optimizer"), EVERY_DAY, ids=str)
def test_the_numbers_are_plain_pytorchs(parallel: dict[str, Any], model: str, optimizer: str) -> None:
    check(config_of(parallel, model, optimizer), model, optimizer)


def sweep() -> list[tuple[dict[str, Any], str, str]]:
    """TP x PP x DP {1, 2}, each with every model; its switches and the optimizers in turn.

    Not AdamW where positions are added to words and normalised: there some gradients cancel to roundings, of which its
    first steps make whole ones.
    """
    cases, turn = [], itertools.count()
    for tensor, pipeline, data in itertools.product((1, 2), repeat=3):
        switches: list[dict[str, Any]] = [{}, {"offload_optimizer": True}]
        switches += [{"virtual_stages": 2}] if pipeline > 1 else [{"zero_stage": 2}]
        switches += [{"sequence_parallel": True, **each} for each in switches[:2]] if tensor > 1 else []
        for model in MODELS:
            n = next(turn)
            grid = {"tensor": tensor, "pipeline": pipeline, "data": data, **switches[n % len(switches)]}
            cases.append((grid, model, "sgd" if model == "tables" or n % 2 else "adamw"))
    more: list[dict[str, Any]] = [
        {"pipeline": 4, "data": 2},
        {"data": 4, "zero_stage": 2},
        {"tensor": 4, "pipeline": 2},
    ]
    return [*cases, *((grid, "tied", "adamw") for grid in more)]


@pytest.mark.full
@pytest.mark.parametrize(("parallel", "model", "optimizer"), sweep(), ids=str)
def test_the_numbers_are_plain_pytorchs_in_every_layout(parallel: dict[str, Any], model: str, optimizer: str) -> None:
    check(config_of(parallel, model, optimizer), model, optimizer)


HALF: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("bf16", EVERYTHING, "adamw", {}),
    ("fp16", {"data": 2, "zero_stage": 2}, "adamw", {"window_steps": 1}),
]
MORE_HALF: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("fp16", EVERYTHING, "sgd", {"window_steps": 1}),
    ("bf16", {"data": 2, "zero_stage": 2}, "sgd", {}),
    ("bf16", {"pipeline": 2, "data": 2}, "sgd", {"accumulate_gradients_in_fp32": False}),
    ("fp16", {"data": 2}, "sgd", {"accumulate_gradients_in_fp32": False}),
    *((dtype, {"data": 2, "offload_optimizer": True}, "adamw", {"window_steps": 1}) for dtype in ("bf16", "fp16")),
]


@pytest.mark.parametrize(
    ("dtype", "parallel", "optimizer", "precision"),
    [*HALF, *(pytest.param(*case, marks=pytest.mark.full) for case in MORE_HALF)],
    ids=str,
)
def test_the_numbers_are_plain_pytorchs_within_rounding(
    dtype: str, parallel: dict[str, Any], optimizer: str, precision: dict[str, Any]
) -> None:
    """Also where fp16's loss scale doubles, which with a window of one step is every step."""
    check(config_of(parallel, optimizer=optimizer, dtype=dtype, **precision), optimizer=optimizer)


def until_applied(launch: Launch, config: RunConfig, begin: Progress) -> tuple[list[StepNumbers], Progress]:
    """Steps until one changes the weights, and where that one began."""
    run = live_run(config, launch)
    after, steps = begin, []
    while after.clip_share is None:
        before = after
        after, numbers = run.take_steps(1, before)
        steps += numbers
    disconnect()
    return steps, before


@pytest.mark.parametrize(
    "switches", [{"zero_stage": 2}, pytest.param({"offload_optimizer": True}, marks=pytest.mark.full)], ids=str
)
def test_overflows_leave_nothing_in_the_numbers_of_the_next_step(switches: dict[str, Any]) -> None:
    """They are those of a run that begins at that step, with a small loss scale."""
    config, small = (config_of({"data": 2, **switches}, dtype="fp16", initial_power=power) for power in (26, 8))
    (steps, began), other = run_distributed(until_applied, 2, config, Progress())
    assert other == (steps, began)
    *overflowed, first = steps
    assert overflowed
    assert not any("gradient_norm/ffn" in step for step in overflowed)
    ([alone], _), _ = run_distributed(until_applied, 2, small, Progress(began.step, began.samples))
    names = [name for name in first if "gradient_norm" in name]
    within = norm_bound("fp16", config.model.num_layers)
    assert {name: first[name] for name in names} == pytest.approx({name: alone[name] for name in names}, rel=within)
    parts = ("embedding_gradient_norm", *(f"gradient_norm/{kind}" for kind in ("attention", "ffn", "norms")))
    assert math.hypot(*(first[name] for name in parts)) == pytest.approx(first["gradient_norm"], rel=1e-6)


def vetoed_and_permitted(launch: Launch, config: RunConfig) -> list[StepNumbers]:
    """The numbers of a vetoed step, and those of the same rows once more."""
    run = live_run(config, launch)
    steps = []
    for permitted in (False, True):
        run.accumulate_gradients()
        outcome = run.engine.step(0.1, permit=lambda _, yes=permitted: yes)
        assert outcome.applied == permitted
        steps.append({"gradient_norm": outcome.gradient_norm, **outcome.statistics})
    disconnect()
    return steps


@pytest.mark.parametrize("parallel", [{"data": 2}, {"pipeline": 2}], ids=str)
def test_a_veto_leaves_nothing_of_the_embeddings_sides(parallel: dict[str, Any]) -> None:
    vetoed, permitted = run_distributed(vetoed_and_permitted, 2, config_of(parallel))[0]
    assert "embedding_gradient_norm/logit_side" in vetoed
    assert permitted == pytest.approx(vetoed, rel=1e-6)


@pytest.mark.parametrize("parallel", [{"data": 2}, {"pipeline": 2, "virtual_stages": 2, "data": 2}], ids=str)
@pytest.mark.parametrize("shrunk", ["input_side", "logit_side"])
def test_under_dropout_a_side_shrunk_to_nothing_leaves_the_other(parallel: dict[str, Any], shrunk: str) -> None:
    sides = {"input_side": False, "logit_side": False, shrunk: True}
    config = small_config(
        parallel=parallel,
        model={
            "hidden_dropout": 0.2,
            "attention_dropout": 0.2,
            "embedding_gradient_shrink": {"alpha": {"start": 0.0, "end": 0.0}, **sides},
        },
    )
    left = {"input_side": "logit_side", "logit_side": "input_side"}[shrunk]
    for step in numbers_of(config)[0]:
        whole = step["embedding_gradient_norm"]
        assert step[f"embedding_gradient_norm/{left}"] == pytest.approx(whole, rel=1e-6)
        assert step[f"embedding_gradient_norm/{shrunk}"] == pytest.approx(0.0, abs=1e-6 * whole)
        assert whole > 0


@pytest.mark.parametrize("pipeline", [1, 2])
def test_sides_that_nobody_asked_for_are_not_measured(pipeline: int) -> None:
    config = small_config(parallel={"pipeline": pipeline}, logging={"embedding_sides": False})
    ((step,), *_) = numbers_of(config, 1)
    assert [name for name in step if name.startswith("embedding_gradient_norm")] == ["embedding_gradient_norm"]
