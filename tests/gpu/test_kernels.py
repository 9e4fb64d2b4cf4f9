"""What the fast paths make of a run: norms, fused pointwise kernels and flash attention against the plain ones."""

from importlib.util import find_spec

import pytest
import torch

from glm130b.config.sections import KernelsConfig
from glm130b.model.geglu import bias_geglu, geglu_backward, geglu_forward
from glm130b.model.kernels import choose_kernels
from glm130b.model.normalization import build_norm
from tests.harness.pool import run_distributed
from tests.harness.synthetic import small_config
from tests.harness.training import train_steps

pytestmark = pytest.mark.gpu


def test_the_compiled_geglu() -> None:
    """Two roundings in bf16; the plain one rounds after every operation."""
    generator = torch.Generator().manual_seed(1)
    x, bias, upstream = (
        torch.randn(shape, generator=generator).to("cuda", torch.bfloat16) for shape in ((64, 256), (256,), (64, 128))
    )
    x.requires_grad_()
    value = bias_geglu(x, bias)
    (gradient,) = torch.autograd.grad(value, x, upstream)
    exact = [y.detach().float() for y in (x, bias)]
    torch.testing.assert_close(value.float(), geglu_forward(*exact), atol=2**-7, rtol=2**-7)
    expected = geglu_backward(upstream.float(), *exact)
    torch.testing.assert_close(gradient.float(), expected, atol=2**-7, rtol=2**-7)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("implementation", ["apex", "transformer_engine"])
def test_norms(implementation: str, kind: str) -> None:
    """A few roundings in bf16, of values of size one."""
    if find_spec(implementation) is None:
        pytest.skip(f"needs the package {implementation}")
    config = small_config(model={"normalization": kind})
    wish = KernelsConfig.model_validate({"norm": implementation})
    choose_kernels(wish, config.model, torch.bfloat16, torch.device("cuda", 0))  # it imports
    x = torch.randn(64, config.model.hidden_size, generator=torch.Generator().manual_seed(1)).to("cuda", torch.bfloat16)
    outputs = []
    for name in (implementation, "torch"):
        norm = build_norm(config.model, name, sequence_parallel=False).to("cuda", torch.bfloat16)  # type: ignore[arg-type]
        assert set(dict(norm.named_parameters())) == ({"weight", "bias"} if kind == "layernorm" else {"weight"})
        outputs.append(norm(x).float())
    torch.testing.assert_close(*outputs, atol=2**-6, rtol=2**-6)


def test_a_run_on_the_fast_paths_follows_the_plain_one() -> None:
    """Losses of bf16, each of a few hundred roundings of 2 ** -9 that point in all directions: within 2 %."""
    losses = []
    for kernels in (KernelsConfig(attention="sdpa", norm="torch", pointwise="plain"), KernelsConfig()):
        config = small_config(precision={"dtype": "bf16"}).model_copy(update={"kernels": kernels})
        (numbers,) = run_distributed(train_steps, 1, config, 10, timeout=300)
        losses.append([step["loss"] for step in numbers])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
