"""What the fast paths make of a run: norms, fused pointwise kernels and flash attention against the plain ones."""

from importlib.util import find_spec

import pytest
import torch

from glm130b.config.sections import KernelsConfig
from glm130b.environment import Launch
from glm130b.model.geglu import bias_geglu, geglu_backward, geglu_forward
from glm130b.model.kernels import choose_kernels
from glm130b.model.normalization import build_norm
from glm130b.model.segments import PackedSegments
from glm130b.parallel.placement import build_stage
from tests.harness.reference_comparison import first_batch, in_segments, load_whole_, scattered_weights
from tests.harness.rounding import value_error
from tests.harness.stage import joined
from tests.harness.synthetic import small_config

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


def test_a_model_on_the_fast_paths_gives_the_plain_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """On GLM-130B's architecture in bf16: both round as often, so their squared errors add up."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")  # a job of one: any free port
    plain = KernelsConfig(attention="sdpa", norm="torch", pointwise="plain")
    first, second = (logits(kernels) for kernels in (plain, KernelsConfig()))
    error = (first - second).square().mean().sqrt() / first.square().mean().sqrt()
    assert error < 2**0.5 * value_error("bf16", small_config().model.num_layers)


@torch.no_grad()
def logits(kernels: KernelsConfig) -> torch.Tensor:
    """fp32 [tokens, V] of the first step's rows, without padding, in this process: the pool's have no GPU."""
    config = small_config(precision={"dtype": "bf16"}).model_copy(update={"kernels": kernels})
    with joined(Launch(rank=0, local_rank=0, world_size=1), config) as topology:
        stage = build_stage(config, topology).eval()
        load_whole_(stage, scattered_weights(config.model))
        batch = first_batch(config)
        on_device = batch.to(topology.device)
        logits_BSV = stage(on_device.tokens_BS, on_device.positions_B2S, PackedSegments(batch.segments))
        return logits_BSV.float().cpu()[in_segments(batch)]
