"""A step judged before its update: the norms that the judge is shown, and that a veto or a gradient that is not finite
changes nothing."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.sharding import EMBEDDING, parameter_shards
from glm130b.parallel.topology import disconnect
from glm130b.parallel.update import NOT_FINITE, GradientNorms
from glm130b.parallel.zero import StepOutcome
from tests.harness.pool import run_distributed
from tests.harness.reference_comparison import oracle
from tests.harness.reference_training import Step, backward, clip_gradients
from tests.harness.rounding import norm_bound
from tests.harness.synthetic import SyntheticRows, small_config
from tests.harness.training import LiveRun, initial_weights, live_run

LEARNING_RATE, NUM_STEPS, REFUSED = 1e-2, 4, (0, 2)
"""The first step, before which there are no moments, and one in the middle are first refused, then taken."""


@dataclass(frozen=True)
class Variant:
    """One way through DeepSpeed."""

    dtype: str = "fp32"
    tensor: int = 1
    pipeline: int = 1
    data: int = 2
    virtual: int = 1
    zero: int = 1
    offload: bool = False
    tied: bool = True
    sums_in_fp32: bool = True
    optimizer: str = "adamw"

    @property
    def world_size(self) -> int:
        return self.tensor * self.pipeline * self.data

    def config(self) -> RunConfig:
        return small_config(
            model={**small_config().model.model_dump(), "tie_embedding": self.tied},
            optimizer={**small_config().optimizer.model_dump(), "name": self.optimizer},
            precision={
                "dtype": self.dtype,
                "accumulate_gradients_in_fp32": self.sums_in_fp32,
                "loss_scale": {"initial_power": 8, "hysteresis": 1},
            },
            parallel={
                "tensor": self.tensor,
                "pipeline": self.pipeline,
                "data": self.data,
                "virtual_stages": self.virtual,
                "zero_stage": self.zero,
                "offload_optimizer": self.offload,
                "reduce_bucket_elements": 10_000,
            },
        )

    def __str__(self) -> str:
        words = [f"{self.dtype} TP{self.tensor} PP{self.pipeline} DP{self.data} ZeRO{self.zero}"]
        words += [f"VPP{self.virtual}"] if self.virtual > 1 else []
        words += ["offload"] if self.offload else []
        words += [] if self.tied else ["untied"]
        words += [] if self.sums_in_fp32 else ["half sums"]
        return " ".join([*words, *([self.optimizer] if self.optimizer != "adamw" else [])])


EXACT = [
    Variant(data=1),
    Variant(tensor=2, pipeline=2, virtual=2),
    Variant(pipeline=2, data=1, tied=False),
    Variant(zero=2),
    Variant(offload=True),
    Variant(optimizer="sgd"),
]
HALF = [
    Variant("fp16", tensor=2, pipeline=2),
    Variant("fp16", zero=2),
    Variant("fp16", offload=True),
    Variant("bf16", tensor=2, pipeline=2),
    Variant("bf16", zero=2),
    Variant("bf16", offload=True),
    Variant("bf16", sums_in_fp32=False),
]


@dataclass
class Ordeal:
    """What one rank saw."""

    shown: list[GradientNorms] = field(default_factory=list)
    """To the judge: a refused step's, then the same step's again; at last those of a step after the poisoned ones."""
    outcomes: list[StepOutcome] = field(default_factory=list)
    """Of these steps."""
    unchanged: list[bool] = field(default_factory=list)
    """After each refused step: weights, masters, moments and step counts, bit for bit, and no gradient left."""
    poisoned: list[tuple[str, StepOutcome, bool]] = field(default_factory=list)
    """(parameter, outcome, unchanged) of steps with one element on the last rank that is not finite."""


def undergo(launch: Launch, config: RunConfig) -> Ordeal:
    run = live_run(config, launch)
    seen = Ordeal()

    def take(answer: bool) -> StepOutcome:
        def judge(norms: GradientNorms) -> bool:
            seen.shown.append(norms)
            return answer

        run.accumulate_gradients()
        return run.engine.step(LEARNING_RATE, permit=judge)

    for index in range(NUM_STEPS):
        if index in REFUSED:
            before = state_of(run)
            seen.outcomes.append(take(False))
            seen.unchanged.append(same(before, state_of(run)) and is_cleared(run))
        seen.outcomes.append(take(True))
    number_shown = len(seen.shown)
    head = EMBEDDING if config.model.tie_embedding else "output_layer.weight"
    for name, value in ((head, math.nan), ("final_layernorm.weight", math.inf), ("linear_fc2.weight", math.nan)):
        before = state_of(run)
        with poison(run, name if launch.rank == launch.world_size - 1 else "nowhere", value):
            outcome = take(True)
        seen.poisoned.append((name, outcome, same(before, state_of(run)) and is_cleared(run)))
    assert len(seen.shown) == number_shown, "the judge was asked about a gradient that is not finite"
    seen.outcomes.append(take(True))
    disconnect()
    return seen


def state_of(run: LiveRun) -> list[Tensor]:
    """Copies of all that a step may change."""
    inner: Any = run.engine._optimizer.optimizer
    flat = [tensor for group in inner.param_groups for tensor in group["params"]]
    moments = [value for tensor in flat for value in inner.state[tensor].values()]
    return [tensor.detach().clone() for tensor in (*run.stage.parameters(), *flat, *moments)]


def same(before: list[Tensor], after: list[Tensor]) -> bool:
    return len(before) == len(after) and all(map(torch.equal, before, after))


def is_cleared(run: LiveRun) -> bool:
    homes = ("grad", "_hp_grad", "grad_accum")
    gradients = [getattr(p, home, None) for p in run.stage.parameters() for home in homes]
    return not any(gradient is not None and gradient.any() for gradient in gradients)


@contextmanager
def poison(run: LiveRun, name: str, value: float) -> Iterator[None]:
    """One element of the gradient of this process's last parameter of the name, in every micro-batch."""

    def spoil(gradient: Tensor) -> Tensor:
        spoiled = gradient.clone()
        spoiled.view(-1)[-1] = value
        return spoiled

    found: list[nn.Parameter] = [s.parameter for s in parameter_shards(run.stage) if s.name.endswith(name)][-1:]
    hooks = [parameter.register_hook(spoil) for parameter in found]
    yield
    for hook in hooks:
        hook.remove()


@cache
def ordeals(variant: Variant) -> list[Ordeal]:
    return run_distributed(undergo, variant.world_size, variant.config(), timeout=100)


@cache
def expected_norms(tied: bool, optimizer: str) -> list[tuple[float, float]]:
    """(whole, embedding) of each step in plain PyTorch."""
    config = Variant(tied=tied, data=1).config()
    model = oracle(config, run_distributed(initial_weights, 1, config)[0])
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.optimizer.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    stepper: torch.optim.Optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE)
    if optimizer == "adamw":
        stepper = torch.optim.AdamW(
            groups,
            lr=LEARNING_RATE,
            betas=(config.optimizer.beta1, config.optimizer.beta2),
            eps=config.optimizer.epsilon,
        )
    rows, norms = [SyntheticRows()[sample] for sample in range(config.batch.global_size)], []
    for _ in range(NUM_STEPS + 1):
        stepper.zero_grad()
        backward(model, Step(rows, LEARNING_RATE))
        gradient = dict(model.named_parameters())[EMBEDDING].grad
        assert gradient is not None
        embedding = gradient.norm().item()
        norms.append((clip_gradients(parameters, config.optimizer.clip_gradient_norm), embedding))
        stepper.step()
    clipped = [whole > config.optimizer.clip_gradient_norm for whole, _ in norms]
    assert any(clipped)  # or the norms before clipping and after could not be told apart
    return norms


def check_norms(variant: Variant, within: float) -> None:
    expected = expected_norms(variant.tied, variant.optimizer)
    asked = [*sorted([*range(NUM_STEPS), *REFUSED]), NUM_STEPS]
    for rank in ordeals(variant):
        for index, shown, outcome in zip(asked, rank.shown, rank.outcomes, strict=True):
            whole, embedding = expected[index]
            assert shown.whole == pytest.approx(whole, abs=within * max(1.0, whole))
            assert shown.embedding == pytest.approx(embedding, abs=within * max(1.0, whole))
            assert (outcome.gradient_norm, outcome.embedding_gradient_norm) == (shown.whole, shown.embedding)
        assert rank.shown == ordeals(variant)[0].shown  # to the last bit, for everyone must decide alike


@pytest.mark.parametrize("variant", EXACT, ids=str)
def test_the_judge_sees_the_norms_of_plain_pytorch(variant: Variant) -> None:
    check_norms(variant, within=1e-5)


@pytest.mark.parametrize("variant", HALF, ids=str)
def test_the_judge_sees_the_norms_within_rounding_in_half_precision(variant: Variant) -> None:
    check_norms(variant, within=norm_bound(variant.dtype, 4))


@pytest.mark.parametrize("variant", [*EXACT, *HALF], ids=str)
def test_a_veto_changes_nothing(variant: Variant) -> None:
    for rank in ordeals(variant):
        assert rank.unchanged == [True] * len(REFUSED)
        applied = [outcome.applied for outcome in rank.outcomes]
        assert applied == [False, True, True, False, True, True, True]
        assert not any(outcome.overflowed for outcome in rank.outcomes)
        # The same step again: had anything changed, or a gradient been left, its norms would be others.
        assert (rank.shown[1], rank.shown[4]) == (rank.shown[0], rank.shown[3])


@pytest.mark.parametrize("variant", [*EXACT, *HALF], ids=str)
def test_a_gradient_that_is_not_finite_changes_nothing(variant: Variant) -> None:
    for rank in ordeals(variant):
        for name, outcome, unchanged in rank.poisoned:
            assert unchanged, name
            assert (outcome.applied, outcome.overflowed) == (False, True), name
            assert GradientNorms(outcome.gradient_norm, outcome.embedding_gradient_norm) == NOT_FINITE, name
        scales = [outcome.loss_scale for _, outcome, _ in rank.poisoned]
        assert scales == ([128.0, 64.0, 32.0] if variant.dtype == "fp16" else [1.0] * 3)
