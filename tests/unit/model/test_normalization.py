"""The norms: their formulas, their parameters, the mark on what sequence parallelism splits, the fused ones' calls."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glm130b.model.normalization import Implementation, build_norm
from tests.harness.synthetic import small_config

H = 32


def build(implementation: Implementation = "torch", *, sequence_parallel: bool = False, **model: Any) -> Any:
    return build_norm(small_config(model=model).model, implementation, sequence_parallel=sequence_parallel)


def by_hand(x: Tensor, norm: Any, epsilon: float, *, centred: bool) -> Tensor:
    """Ba et al. 2016 with ``centred``, else Zhang and Sennrich 2019."""
    x = x.double()
    if centred:
        x = x - x.mean(dim=-1, keepdim=True)
    scaled = norm.weight.double() * x / (x.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()
    return scaled if getattr(norm, "bias", None) is None else scaled + norm.bias.double()


@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_values(kind: str, biases: bool, epsilon: float) -> None:
    norm = build(normalization=kind, biases=biases, layernorm_epsilon=epsilon)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(H, generator=generator))
    x = torch.randn(5, 2, H, generator=generator) + 1  # far from centred
    expected = by_hand(x, norm, epsilon, centred=kind == "layernorm")
    torch.testing.assert_close(norm(x).double(), expected, atol=1e-5, rtol=1e-5)
    assert (expected - by_hand(x, norm, epsilon, centred=kind != "layernorm")).abs().max() > 0.5


@pytest.mark.parametrize(
    ("kind", "biases", "names"),
    [
        ("layernorm", True, ["weight", "bias"]),
        ("layernorm", False, ["weight"]),
        ("rmsnorm", True, ["weight"]),
        ("rmsnorm", False, ["weight"]),
    ],
)
def test_parameters(kind: str, biases: bool, names: list[str]) -> None:
    assert [name for name, _ in build(normalization=kind, biases=biases).named_parameters()] == names


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("sequence_parallel", [True, False])
def test_every_parameter_says_whether_it_sees_a_part_of_the_sequence(kind: str, sequence_parallel: bool) -> None:
    norm = build(normalization=kind, sequence_parallel=sequence_parallel)
    assert {parameter.sequence_parallel for parameter in norm.parameters()} == {sequence_parallel}


class Fused(nn.Module):
    """Stands for a norm of a library that is not installed."""

    def __init__(self, size: int, *, eps: float) -> None:
        super().__init__()
        self.asked = size, eps
        self.weight = nn.Parameter(torch.ones(size))


class FusedLayerNorm(Fused): ...


class FusedRMSNorm(Fused): ...


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """apex and Transformer Engine, as far as they are called."""
    apex = SimpleNamespace(FusedLayerNorm=FusedLayerNorm, FusedRMSNorm=FusedRMSNorm)
    engine = SimpleNamespace(LayerNorm=FusedLayerNorm, RMSNorm=FusedRMSNorm)
    modules = {
        "apex": SimpleNamespace(normalization=apex),
        "apex.normalization": apex,
        "transformer_engine": SimpleNamespace(pytorch=engine),
        "transformer_engine.pytorch": engine,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("implementation", ["apex", "transformer_engine"])
@pytest.mark.parametrize(("kind", "fused"), [("layernorm", FusedLayerNorm), ("rmsnorm", FusedRMSNorm)])
def test_the_fused_norm_of_the_kind_is_built(implementation: Implementation, kind: str, fused: type[Fused]) -> None:
    norm = build(implementation, normalization=kind, layernorm_epsilon=0.25, sequence_parallel=True)
    assert type(norm) is fused
    assert norm.asked == (H, 0.25)
    assert all(parameter.sequence_parallel for parameter in norm.parameters())
