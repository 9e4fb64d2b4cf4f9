"""Ours against plain PyTorch in fp32: losses, every gradient, and twenty steps of training, in every basic layout."""

from functools import cache

import pytest
import torch
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.training.schedules import Schedules
from tests.harness.pool import run_distributed
from tests.harness.reference_glm import ReferenceGLM
from tests.harness.reference_training import Step, StepResult, backward, train
from tests.harness.synthetic import SyntheticRows, small_config
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


def laid_out(layout: str, **sections: object) -> tuple[RunConfig, int]:
    """The small config in a layout, and the number of processes it takes."""
    tensor, pipeline, data = LAYOUTS[layout]
    parallel = {"tensor": tensor, "pipeline": pipeline, "data": data, **sections.pop("parallel", {})}  # type: ignore[dict-item]
    return small_config(parallel=parallel, **sections), tensor * pipeline * data  # type: ignore[arg-type]


@cache
def _initial_weights() -> dict[str, Tensor]:
    return run_distributed(initial_weights, 1, small_config())[0]


def reference_model(config: RunConfig) -> ReferenceGLM:
    """The oracle with the run's initial weights."""
    sizes = config.model
    model = ReferenceGLM(
        num_layers=sizes.num_layers,
        hidden_size=sizes.hidden_size,
        num_attention_heads=sizes.num_attention_heads,
        ffn_hidden_size=sizes.ffn_hidden_size,
        vocab_size=sizes.vocab_size,
    )
    model.load_state_dict(_initial_weights())
    return model


@cache
def reference_training(optimizer: str) -> list[StepResult]:
    """Losses and gradient norms of twenty steps of the oracle."""
    config = small_config(optimizer={"name": optimizer})
    schedules, rows = Schedules(config), SyntheticRows()
    batch = config.batch.global_size
    steps = [
        Step(
            rows=[rows[sample] for sample in range(first, first + batch)],
            learning_rate=schedules.learning_rate(first),
            input_alpha=schedules.embedding_gradient_alpha(first),
            logit_alpha=schedules.embedding_gradient_alpha(first),
        )
        for first in range(0, NUM_STEPS * batch, batch)
    ]
    return train(
        reference_model(config),
        steps,
        optimizer=optimizer,  # type: ignore[arg-type]
        clip_gradient_norm=config.optimizer.clip_gradient_norm,
        weight_decay=config.optimizer.weight_decay,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_gradient_is_the_reference_gradient(layout: str) -> None:
    config, world_size = laid_out(layout)
    shrink = ShrinkFactors(input_side=0.25, logit_side=0.5)
    ranks = run_distributed(first_gradients, world_size, config, shrink)

    oracle, rows = reference_model(config), SyntheticRows()
    backward(oracle, Step([rows[i] for i in range(config.batch.global_size)], 0.0, input_alpha=0.25, logit_alpha=0.5))
    expected = {name: parameter.grad for name, parameter in oracle.named_parameters()}

    # Ranks count tensor, data, pipeline. Data-parallel ranks hold the gradients of their own rows, which ZeRO averages;
    # every other rank must hold its piece of the whole gradient by itself, replicated parameters too.
    tensor, data = config.parallel.tensor, config.parallel.data or 1
    uncovered = {name: torch.ones_like(gradient) for name, gradient in expected.items()}
    for first in (rank for rank in range(world_size) if rank // tensor % data == 0):
        replicas = [ranks[first + tensor * replica] for replica in range(data)]
        for name, parts in replicas[0].items():
            for index, (dim, start, values) in enumerate(parts):
                mean = torch.stack([replica[name][index][2] for replica in replicas]).mean(dim=0)
                whole = expected[name].narrow(dim, start, values.shape[dim])
                torch.testing.assert_close(
                    mean, whole, atol=2e-7, rtol=2e-5, msg=lambda m, n=name, r=first: f"{n} on rank {r}: {m}"
                )
                uncovered[name].narrow(dim, start, values.shape[dim]).zero_()
    assert not any(left.any() for left in uncovered.values())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_twenty_steps_are_the_reference_steps(layout: str, optimizer: str) -> None:
    config, world_size = laid_out(layout, optimizer={"name": optimizer})
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
    config, world_size = laid_out("PP2", optimizer={"name": "sgd"})
    assert run_distributed(train_steps, world_size, config, 1)[0][0]["gradient_norm"] == pytest.approx(
        expected, abs=1e-6
    )
