"""The fused GeGLU against the same arithmetic by autograd."""

import shutil
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from megatron.core.fusions.fused_bias_geglu import bias_geglu_impl
from torch import Tensor

from glm130b.model.geglu import bias_geglu

S, B, FFN = 5, 3, 8


def unfused(x: Tensor, bias: Tensor | None) -> Tensor:
    gated, linear = (x if bias is None else x + bias).chunk(2, dim=-1)
    return F.gelu(gated) * linear


@pytest.fixture
def plain() -> Iterator[None]:
    """Leave the compiler out."""
    with torch.compiler.set_stance("force_eager"):
        yield


def outputs(function: Callable[[Tensor, Tensor | None], Tensor], has_bias: bool, dtype: torch.dtype) -> list[Tensor]:
    """Value, gradient of the input and of the bias."""
    generator = torch.Generator().manual_seed(3)
    inputs = [
        (2 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
        for shape in ((S, B, 2 * FFN), (2 * FFN,))[: 1 + has_bias]
    ]
    value = function(inputs[0], inputs[1] if has_bias else None)
    return [value, *torch.autograd.grad(value, inputs, torch.randn(S, B, FFN, generator=generator).to(dtype))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.usefixtures("plain")
def test_the_uncompiled_formula_is_autograd_s_to_the_last_bit(has_bias: bool, dtype: torch.dtype) -> None:
    for ours, expected in zip(outputs(bias_geglu, has_bias, dtype), outputs(unfused, has_bias, dtype), strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, expected)


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_the_compiled_formula_is_equal_up_to_rounding() -> None:
    """Values up to ten and sums of them: eight roundings of 2 ** -24 each."""
    exact = outputs(unfused, True, torch.float32)
    for ours, expected in zip(outputs(bias_geglu, True, torch.float32), exact, strict=True):
        torch.testing.assert_close(ours, expected, atol=5e-6, rtol=0)


@pytest.mark.usefixtures("plain")
def test_megatron_s_own_is_the_approximation() -> None:
    """Why this file exists. If this fails, Megatron-core has become exact and this file may go."""
    exact, theirs = outputs(unfused, True, torch.float32), outputs(bias_geglu_impl, True, torch.float32)
    assert (exact[0] - theirs[0]).abs().max() > 1e-4


@pytest.mark.usefixtures("plain")
def test_only_the_input_is_kept() -> None:
    kept: list[int] = []
    x, bias = torch.randn(S, B, 2 * FFN, requires_grad=True), torch.randn(2 * FFN, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        bias_geglu(x, bias)
    assert set(kept) == {x.data_ptr(), bias.data_ptr()}
