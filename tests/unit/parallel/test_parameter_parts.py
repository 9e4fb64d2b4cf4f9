"""Which part of the model a parameter belongs to, and sums of squares by part."""

import pytest
import torch
from torch import nn

from glm130b.config.model import ModelConfig
from glm130b.model.sharding import EMBEDDING, ParameterShard
from glm130b.parallel.ownership import Owned
from glm130b.parallel.parameter_parts import ParameterParts, kind, kinds, layer, squares
from tests.harness.reference_glm import ReferenceGLM
from tests.harness.synthetic import small_config


def held(name: str, *, is_counted: bool = True) -> Owned:
    shard = ParameterShard(
        name, nn.Parameter(torch.zeros(0)), (0,), 0, pieces=(), is_replicated=False, is_tied_copy=not is_counted
    )
    return Owned(shard, group=0, group_start=0, parameter_start=0, length=0, is_counted=is_counted)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (EMBEDDING, "embedding"),
        ("embedding.position.weight", "positions"),
        ("embedding.block_position.weight", "positions"),
        ("embedding.norm.bias", "norms"),
        ("decoder.layers.3.input_layernorm.weight", "norms"),
        ("decoder.final_layernorm.bias", "norms"),
        ("decoder.layers.3.self_attention.linear_qkv.bias", "attention"),
        ("decoder.layers.3.mlp.linear_fc2.weight", "ffn"),
        ("output_layer.weight", "projection"),
    ],
)
def test_kind(name: str, expected: str) -> None:
    assert kind(name) == expected


def test_layer() -> None:
    assert layer("decoder.layers.12.mlp.linear_fc1.weight") == "layer.12"
    assert [layer(name) for name in (EMBEDDING, "decoder.final_layernorm.weight", "output_layer.weight")] == [None] * 3


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"tie_embedding": False, "norm_placement": "sandwich"},
        {"positions": "learned", "max_positions": 32, "norm_placement": "post"},
        {
            "positions": "learned_2d",
            "max_positions": 32,
            "embedding_norm": True,
            "normalization": "rmsnorm",
            "biases": False,
        },
    ],
    ids=str,
)
def test_a_model_has_parameters_of_its_kinds_and_of_no_other(sections: dict[str, object]) -> None:
    model: ModelConfig = small_config(model=sections).model
    with torch.device("meta"):
        names = [name for name, _ in ReferenceGLM(model).named_parameters()]
    assert {kind(name) for name in names} == {*kinds(model), "embedding"}
    assert {layer(name) for name in names} == {None, *(f"layer.{index}" for index in range(model.num_layers))}


def test_sums_by_part() -> None:
    """A copy counts nowhere but in what is held."""
    norm, ffn = "decoder.layers.2.input_layernorm.weight", "decoder.layers.2.mlp.linear_fc1.weight"
    owned = [held(EMBEDDING), held(norm), held(ffn), held(ffn, is_counted=False)]
    parts = ParameterParts(small_config().model, owned)
    sums = parts.sums(squares([torch.tensor([3.0, 4.0]), *(torch.tensor([value]) for value in (1.0, 2.0, 10.0))]))
    found = {name: value for name, value in zip(parts.names, sums.tolist(), strict=True) if value}
    assert found == {"embedding": 25.0, "norms": 1.0, "ffn": 4.0, "layer.2": 5.0, "whole": 30.0, "held": 130.0}


def test_a_rank_that_owns_nothing_adds_nothing() -> None:
    assert not ParameterParts(small_config().model, []).sums(squares([])).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_in_a_copy_is_seen(value: float) -> None:
    parts = ParameterParts(small_config().model, [held("output_layer.weight", is_counted=False)])
    assert not parts.sums(squares([torch.tensor([value])]))[-1].isfinite()


def test_no_digits_are_lost_over_many_elements() -> None:
    """PyTorch's own sum over as many, in fp32, is off by a thousandth on a CPU."""
    values = torch.randn(2**22 + 5, generator=torch.Generator().manual_seed(0))
    exact = values.double().square().sum().item()
    assert squares([values[:7], values])[1].item() == pytest.approx(exact, rel=1e-6)
    assert values.norm().square().item() != pytest.approx(exact, rel=1e-5)
