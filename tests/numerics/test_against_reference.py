"""Ours against plain PyTorch in fp32: losses, every gradient, and twenty steps of training, in every basic layout."""

from functools import cache
from typing import Any

import pytest
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.model.gradient_shrink import ShrinkFactors
from tests.harness.pool import run_distributed
from tests.harness.reference_comparison import assert_gradients, oracle_gradients, oracle_steps
from tests.harness.reference_training import StepResult
from tests.harness.synthetic import small_config
from tests.harness.training import first_gradients, initial_weights, train_steps

LAYOUTS = {
    "TP1 PP1 DP1": (1, 1, 1),
    "TP2": (2, 1, 1),
    "PP2": (1, 2, 1),
    "DP2": (1, 1, 2),
    "TP2 PP2": (2, 2, 1),
    "TP2 PP2 DP2": (2, 2, 2),
}
NUM_STEPS = 20
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"name": "adamw"},
    "sgd": {
        "name": "sgd",
        "learning_rate": {"peak": 0.3, "minimum": 0.3, "warmup_samples": 16, "decay_samples": 160},
    },
}
"""Plain SGD needs a larger rate to learn anything in twenty steps."""


def laid_out(layout: str, **sections: object) -> tuple[RunConfig, int]:
    """The small config in a layout, and the number of processes it takes."""
    tensor, pipeline, data = LAYOUTS[layout]
    parallel = {"tensor": tensor, "pipeline": pipeline, "data": data, **sections.pop("parallel", {})}  # type: ignore[dict-item]
    return small_config(parallel=parallel, **sections), tensor * pipeline * data  # type: ignore[arg-type]


@cache
def _initial_weights() -> dict[str, Tensor]:
    return run_distributed(initial_weights, 1, small_config())[0]


@cache
def reference_training(optimizer: str) -> list[StepResult]:
    """Losses and gradient norms of twenty steps of the oracle."""
    return oracle_steps(small_config(optimizer=OPTIMIZERS[optimizer]), _initial_weights(), NUM_STEPS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_gradient_is_the_reference_gradient(layout: str) -> None:
    config, world_size = laid_out(layout)
    shrink = ShrinkFactors(input_side=0.25, logit_side=0.5)
    ranks = run_distributed(first_gradients, world_size, config, shrink)
    assert_gradients(ranks, oracle_gradients(config, _initial_weights(), shrink), config, atol=2e-7, rtol=2e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_twenty_steps_are_the_reference_steps(layout: str, optimizer: str) -> None:
    config, world_size = laid_out(layout, optimizer=OPTIMIZERS[optimizer])
    expected = reference_training(optimizer)
    for numbers in run_distributed(train_steps, world_size, config, NUM_STEPS):  # every rank reports the same
        for ours, reference in zip(numbers, expected, strict=True):
            assert ours["loss"] == pytest.approx(reference.loss, abs=1e-5)
            assert ours["gradient_norm"] == pytest.approx(reference.gradient_norm, abs=1e-5)
    # The comparison would be empty if nothing were learned or nothing clipped.
    assert expected[-1].loss < expected[0].loss - 0.1
    assert max(step.gradient_norm for step in expected) > config.optimizer.clip_gradient_norm


def test_the_gradient_norm_counts_the_tied_embedding_once() -> None:
    """Under a pipeline both copies of the embedding hold the whole gradient; counting both would give a larger norm."""
    expected = reference_training("sgd")[0].gradient_norm
    config, world_size = laid_out("PP2", optimizer=OPTIMIZERS["sgd"])
    assert run_distributed(train_steps, world_size, config, 1)[0][0]["gradient_norm"] == pytest.approx(
        expected, abs=1e-6
    )
