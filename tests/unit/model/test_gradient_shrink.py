"""Gradient shrink: not one bit of the forward pass changes; the gradient is scaled where it was asked, nowhere else."""

import pytest
import torch
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.gradient_shrink import ShrinkFactors, shrink_gradient
from glm130b.model.segments import PackedSegments
from tests.harness.pool import run_distributed
from tests.harness.stage import initial_chunk, scatter_parameters_
from tests.harness.synthetic import small_config

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
BITS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32}


def many_values(dtype: torch.dtype) -> Tensor:
    """Every 16-bit pattern, infinities and NaNs included; in fp32 a hundred thousand patterns from a generator."""
    if dtype == torch.float32:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(-(2**31), 2**31, (100_000,), generator=generator).to(torch.int32).view(dtype)
    return torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_forward_pass_is_the_same_to_the_last_bit(dtype: torch.dtype, alpha: float) -> None:
    weight = many_values(dtype).requires_grad_()
    shrunk = shrink_gradient(weight, alpha)
    assert shrunk.dtype == dtype
    assert torch.equal(shrunk.detach().view(BITS[dtype]), weight.detach().view(BITS[dtype]))


def test_the_formula_of_the_paper_is_not() -> None:
    """Why the gradient is scaled in the backward pass: one fp16 weight in twelve would be rounded away from itself."""
    weight = (torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 0.01).half()
    as_in_paper = weight * 0.1 + weight.detach() * (1 - 0.1)
    assert (as_in_paper != weight).float().mean().item() == pytest.approx(0.087, abs=0.01)
    assert torch.equal(shrink_gradient(weight, 0.1), weight)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_is_scaled_exactly(dtype: torch.dtype, alpha: float) -> None:
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    upstream = torch.randint(-100, 100, (1000,), generator=torch.Generator().manual_seed(2)).to(dtype)
    shrink_gradient(weight, alpha).backward(upstream)
    assert weight.grad is not None
    assert torch.equal(weight.grad.double(), upstream.double() * alpha)  # nothing to round in any dtype


def test_alpha_one_adds_nothing_to_the_graph() -> None:
    weight = torch.ones(3, requires_grad=True)
    assert shrink_gradient(weight, 1.0) is weight


def gradients(launch: Launch, config: RunConfig, shrinks: list[ShrinkFactors]) -> list[dict[str, Tensor]]:
    """Loss and gradient of every parameter under each shrink, of the same micro-batch and the same weights."""
    with initial_chunk(launch, config) as model:
        scatter_parameters_(model)
        tokens_BS = torch.arange(24).view(2, 12)
        answers = []
        for shrink in shrinks:
            model.zero_grad()
            loss = model(
                tokens_BS,
                torch.arange(12).expand(2, 2, 12),
                PackedSegments([[(0, 4, 8)], [(0, 2, 9)]]),
                tokens_BS + 40,
                shrink,
            ).mean()
            loss.backward()
            answers.append({name: p.grad.clone() for name, p in model.named_parameters()} | {"loss": loss.detach()})
        return answers


def test_each_side_of_the_tied_embedding_shrinks_by_its_own_factor() -> None:
    shrinks = [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.25, 0.5)]
    (answers,) = run_distributed(gradients, 1, small_config(), [ShrinkFactors(*sides) for sides in shrinks])
    both, input_only, logit_only, shrunk = (answer.pop("embedding.word.weight") for answer in answers)

    assert input_only[:24].abs().min() > 0  # the looked-up tokens
    assert not input_only[24:].any()
    assert logit_only.abs().min() > 0  # every token has a logit
    torch.testing.assert_close(both, input_only + logit_only, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(shrunk, 0.25 * input_only + 0.5 * logit_only, atol=1e-6, rtol=1e-5)

    for answer in answers[1:]:  # the loss and every other gradient do not notice
        assert answer.keys() == answers[0].keys()
        assert all(torch.equal(answer[name], answers[0][name]) for name in answer)
