"""The oracle of training, against hand computation and finite differences in fp64."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.harness.reference_training import Step, StepResult, backward, clip_gradients, rows_loss, train
from tests.unit.harness.tiny_glm import LENGTH, logits_of, random_row, tiny_model


def gradients(step: Step, micro_size: int | None = None, **switches: Any) -> dict[str, Tensor]:
    model = tiny_model(**switches)
    backward(model, step, micro_size=micro_size)
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def step_of(num_rows: int) -> Step:
    return Step(rows=[random_row(seed) for seed in range(num_rows)], learning_rate=0.1)


def test_batch_loss_is_mean_over_rows_of_mean_over_loss_tokens() -> None:
    """Rows with different numbers of loss tokens weigh the same."""
    model, short = tiny_model(), random_row(1)
    short = replace(short, loss_mask=short.loss_mask & (np.arange(LENGTH) == 4))
    rows = [random_row(0), short]
    by_hand = []
    for row in rows:
        log_probabilities = logits_of(model, row).log_softmax(dim=-1)
        token_losses = [-log_probabilities[s, row.targets[s]].item() for s in np.flatnonzero(row.loss_mask)]
        by_hand.append(sum(token_losses) / len(token_losses))
    assert backward(model, Step(rows=rows, learning_rate=0.0)) == pytest.approx(sum(by_hand) / 2, rel=1e-9)


def test_gradient_matches_finite_differences() -> None:
    """Along a random direction per parameter, in fp64."""
    step, model = step_of(2), tiny_model()
    backward(model, step)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        losses = []
        with torch.no_grad():
            for offset in (1e-5, -2e-5, 1e-5):
                parameter.add_(offset * direction)
                losses.append(rows_loss(model, step.rows, step).mean().item())
        assert parameter.grad is not None
        slope = (losses[0] - losses[1]) / 2e-5
        assert (parameter.grad * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-8), name


def test_embedding_gradient_shrink() -> None:
    """Each side's share of the tied gradient is scaled by its own alpha; nothing else changes."""
    step = step_of(2)
    full = gradients(step)
    input_share = gradients(replace(step, logit_alpha=0.0))["embedding.word.weight"]
    logit_share = gradients(replace(step, input_alpha=0.0))["embedding.word.weight"]
    assert input_share.norm() > 1e-3
    assert logit_share.norm() > 1e-3
    torch.testing.assert_close(full["embedding.word.weight"], input_share + logit_share)

    shrunk = gradients(replace(step, input_alpha=0.1, logit_alpha=0.7))
    torch.testing.assert_close(shrunk.pop("embedding.word.weight"), 0.1 * input_share + 0.7 * logit_share)
    assert all(torch.equal(gradient, full[name]) for name, gradient in shrunk.items())


def test_an_untied_head_is_not_shrunk() -> None:
    full, shrunk = (
        gradients(replace(step_of(2), input_alpha=alpha, logit_alpha=alpha), tie_embedding=False)
        for alpha in (1.0, 0.1)
    )
    torch.testing.assert_close(shrunk.pop("embedding.word.weight"), 0.1 * full.pop("embedding.word.weight"))
    assert all(torch.equal(gradient, full[name]) for name, gradient in shrunk.items())
    assert full["output_layer.weight"].norm() > 1e-3


def test_micro_batches_change_rounding_only() -> None:
    step = step_of(5)
    whole, pieces = gradients(step), gradients(step, micro_size=2)
    for name, gradient in whole.items():
        torch.testing.assert_close(pieces[name], gradient)


@pytest.mark.parametrize(("maximum", "expected"), [(10.0, [3.0, 4.0]), (1.0, [0.6, 0.8])])
def test_clipping_by_hand(maximum: float, expected: list[float]) -> None:
    """Gradients 3 and 4 have norm 5; a parameter without gradient counts for nothing."""
    parameters = [nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(3)]
    for parameter, gradient in zip(parameters, (3.0, 4.0), strict=False):
        parameter.grad = torch.full((1,), gradient, dtype=torch.float64)
    assert clip_gradients(parameters, maximum) == pytest.approx(5.0)
    assert [p.grad.item() for p in parameters if p.grad is not None] == pytest.approx(expected, rel=1e-6)


def one_step(optimizer: str, clip: float) -> tuple[StepResult, Callable[[str], tuple[Tensor, Tensor, Tensor]]]:
    """The result of one step and, by name, a parameter's value before, its unclipped gradient and its value after."""
    step, model = step_of(2), tiny_model()
    before, unclipped = tiny_model().state_dict(), gradients(step)
    assert optimizer in ("adamw", "sgd")
    (result,) = train(
        model,
        [step],
        optimizer="adamw" if optimizer == "adamw" else "sgd",
        clip_gradient_norm=clip,
        weight_decay=0.25 if optimizer == "adamw" else 0.0,
    )
    after = model.state_dict()
    return result, lambda name: (before[name], unclipped[name], after[name])


def test_sgd_step_by_hand() -> None:
    """The norm counts the tied embedding once and is the one before clipping; the step uses the clipped gradient."""
    result, parameter = one_step("sgd", clip=0.5)
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients(step_of(2)).values()))
    assert norm > 0.5
    assert result.gradient_norm == pytest.approx(norm, rel=1e-12)
    for name in ("embedding.word.weight", "decoder.layers.1.mlp.linear_fc1.bias"):
        before, gradient, after = parameter(name)
        torch.testing.assert_close(after, before - 0.1 * gradient * 0.5 / (norm + 1e-6), rtol=1e-10, atol=0)


def test_first_adamw_step_by_hand() -> None:
    """Bias correction makes the first step ``g / (|g| + eps)``; decay touches matrices and the embedding only."""
    result, parameter = one_step("adamw", clip=1e9)
    assert result.loss == pytest.approx(backward(tiny_model(), step_of(2)), rel=1e-12)
    decays = {
        "embedding.word.weight": 0.25,
        "decoder.layers.0.self_attention.linear_qkv.weight": 0.25,
        "decoder.layers.0.self_attention.linear_qkv.bias": 0.0,
        "decoder.final_layernorm.weight": 0.0,
    }
    for name, decay in decays.items():
        before, gradient, after = parameter(name)
        expected = before * (1 - 0.1 * decay) - 0.1 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(after, expected, rtol=1e-9, atol=1e-12)


def test_second_step_uses_its_own_rate_and_weights() -> None:
    model = tiny_model()
    steps = [replace(step_of(2), learning_rate=rate) for rate in (0.0, 0.05, 0.05)]
    results = train(model, steps, optimizer="sgd", clip_gradient_norm=1.0)
    assert results[1] == results[0]  # a rate of 0 moved nothing
    assert results[2].loss < results[1].loss
