"""The oracle's parts, each against hand computation or PyTorch's own."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.harness.reference_glm import visibility
from tests.harness.reference_layers import FFN, Attention, Norm, alibi_slopes, build_layer, rotate
from tests.unit.harness.tiny_glm import tiny_config


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomise_(module: nn.Module) -> None:
    for seed, parameter in enumerate(module.parameters()):
        parameter.data = random(*parameter.shape, seed=seed)


# Norms


def test_layernorm_is_pytorchs() -> None:
    norm, x_BSH = Norm(tiny_config(layernorm_epsilon=0.1)), random(2, 3, 12, seed=9)
    randomise_(norm)
    expected = functional.layer_norm(x_BSH, (12,), norm.weight, norm.bias, eps=0.1)
    torch.testing.assert_close(norm(x_BSH), expected)


def test_rmsnorm_is_pytorchs() -> None:
    norm, x_BSH = Norm(tiny_config(normalization="rmsnorm", layernorm_epsilon=0.1)), random(2, 3, 12, seed=9)
    randomise_(norm)
    torch.testing.assert_close(norm(x_BSH), functional.rms_norm(x_BSH, (12,), norm.weight, eps=0.1))


@pytest.mark.parametrize(
    ("normalization", "biases", "has_bias"),
    [("layernorm", True, True), ("layernorm", False, False), ("rmsnorm", True, False), ("rmsnorm", False, False)],
)
def test_only_a_layernorm_with_biases_has_one(normalization: str, biases: bool, has_bias: bool) -> None:
    assert (Norm(tiny_config(normalization=normalization, biases=biases)).bias is not None) == has_bias


# Positions


def test_rotation_by_hand() -> None:
    """D = 4, base 100: dimensions 0 and 2 turn by the position, 1 and 3 by a tenth of it."""
    rotated = rotate(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4), torch.tensor([[5]]), 100.0)
    c, s, c10, s10 = math.cos(5), math.sin(5), math.cos(0.5), math.sin(0.5)
    expected = torch.tensor([c - 3 * s, 2 * c10 - 4 * s10, 3 * c + s, 4 * c10 + 2 * s10])
    torch.testing.assert_close(rotated.flatten(), expected)


def test_rotated_products_depend_on_distance_only() -> None:
    query, key = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def product(query_position: int, key_position: int) -> float:
        turned = rotate(query, torch.tensor([[query_position]]), 1e4) * rotate(key, torch.tensor([[key_position]]), 1e4)
        return turned.sum().item()

    assert product(107, 103) == pytest.approx(product(7, 3), abs=1e-4)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-2)


def test_fp16_table_rounds_at_every_step() -> None:
    """Of (1, 1, 0, 0), the rotation's four numbers are the cosines and the sines themselves; 2047 is exact in fp16."""
    ones = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 4)
    frequencies = np.array([1.0, 1e4**-0.5], dtype=np.float32).astype(np.float16)
    angles = (np.float32(2047) * frequencies.astype(np.float32)).astype(np.float16).astype(np.float32)
    expected = np.concatenate((np.cos(angles), np.sin(angles))).astype(np.float16).astype(np.float32)
    rotated = rotate(ones, torch.tensor([[2047]]), 1e4, "fp16").flatten()
    assert rotated.dtype == torch.float32
    assert rotated.tolist() == expected.tolist()
    exact = rotate(ones, torch.tensor([[2047]]), 1e4).flatten()
    assert (rotated - exact).abs().max() > 1e-3


def test_two_dimensional_rotation_turns_half_a_head_by_each_position() -> None:
    attention = Attention(tiny_config(positions="rope_2d", num_attention_heads=1, head_dim=8, rotary_base=50.0))
    x_BSND, positions_B2S = random(1, 3, 1, 8), torch.tensor([[[3, 1, 4], [0, 5, 9]]])
    rotated = attention.rotated(x_BSND, positions_B2S)
    torch.testing.assert_close(rotated[..., :4], rotate(x_BSND[..., :4], torch.tensor([[3, 1, 4]]), 50.0))
    torch.testing.assert_close(rotated[..., 4:], rotate(x_BSND[..., 4:], torch.tensor([[0, 5, 9]]), 50.0))


def test_alibi_slopes_of_powers_of_two() -> None:
    assert alibi_slopes(1) == [1 / 256]
    assert alibi_slopes(2) == [1 / 16, 1 / 256]
    assert alibi_slopes(8) == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert alibi_slopes(16) == pytest.approx([2 ** (-i / 2) for i in range(1, 17)])


def test_alibi_slopes_of_other_numbers_of_heads() -> None:
    """Six heads: the four of n = 4, then the first and third of n = 8; 112 is BLOOM's number."""
    assert alibi_slopes(3) == [1 / 16, 1 / 256, 1 / 4]
    assert alibi_slopes(6) == [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]
    assert alibi_slopes(112)[:64] == alibi_slopes(64)
    assert alibi_slopes(112)[64:] == alibi_slopes(128)[:96:2]


def test_alibi_alone_weighs_values_by_distance() -> None:
    """Without query and key, a token two positions away weighs exp(-2 slope); tokens may share a position."""
    attention = Attention(tiny_config(positions="alibi", num_attention_heads=2, hidden_size=2, biases=False))
    with torch.no_grad():
        attention.linear_qkv.weight.zero_()
        attention.linear_qkv.weight[[2, 5]] = torch.eye(2)  # value of head n is channel n
        attention.linear_proj.weight.copy_(torch.eye(2))
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    positions_B2S = torch.tensor([[[5, 3, 3], [0, 7, 1]]])
    out = attention(values[None], positions_B2S, visibility([[(0, 2, 1)]], 3))[0]
    for head, slope in enumerate((1 / 16, 1 / 256)):
        far = math.exp(-2 * slope)
        of_first = (values[0] + far * values[1]) / (1 + far)
        of_last = (far * values[0] + values[1] + values[2]) / (2 + far)
        assert out[0, head].item() == pytest.approx(of_first[head].item(), rel=1e-6)
        assert out[2, head].item() == pytest.approx(of_last[head].item(), rel=1e-6)


# Attention


def test_fused_rows_are_query_key_value_of_one_head_after_another() -> None:
    attention = Attention(tiny_config(hidden_size=4, num_attention_heads=2))
    query, key, value = attention.query_key_value(torch.arange(12.0).view(1, 1, 12), torch.zeros(1, 2, 1).long())
    assert query.tolist() == [[[[0, 1], [6, 7]]]]
    assert key.tolist() == [[[[2, 3], [8, 9]]]]
    assert value.tolist() == [[[[4, 5], [10, 11]]]]


def test_fused_rows_of_grouped_heads_are_the_groups_queries_then_its_key_and_value() -> None:
    attention = Attention(tiny_config(num_attention_heads=4, num_key_value_heads=2, head_dim=1, positions="alibi"))
    assert attention.linear_qkv.weight.shape == (8, 12)
    assert attention.linear_proj.weight.shape == (12, 4)
    query, key, value = attention.query_key_value(torch.arange(8.0).view(1, 1, 8), torch.zeros(1, 2, 1).long())
    assert query.flatten().tolist() == [0, 1, 4, 5]
    assert key.flatten().tolist() == [2, 6]
    assert value.flatten().tolist() == [3, 7]


def repeat_heads(rows: Tensor, groups: int) -> Tensor:
    """Fused rows of four heads of width 6 that each have a key and a value, out of those of ``groups`` groups."""
    heads = []
    for group in rows.chunk(groups):
        *queries, key, value = group.split(6)
        heads += [torch.cat((query, key, value)) for query in queries]
    return torch.cat(heads)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("positions", ["rope", "alibi"])
def test_grouped_heads_are_full_heads_that_share_keys_and_values(groups: int, positions: str) -> None:
    sizes = {"num_attention_heads": 4, "head_dim": 6, "positions": positions}
    grouped = Attention(tiny_config(num_key_value_heads=groups, **sizes)).double()
    full = Attention(tiny_config(**sizes)).double()
    randomise_(grouped)
    full.linear_proj.load_state_dict(grouped.linear_proj.state_dict())
    full.linear_qkv.load_state_dict(
        {name: repeat_heads(rows, groups) for name, rows in grouped.linear_qkv.state_dict().items()}
    )
    arguments = (random(2, 5, 12), torch.arange(20).view(2, 2, 5), visibility([[(0, 2, 3)], [(0, 0, 4)]], 5))
    torch.testing.assert_close(grouped(*arguments), full(*arguments))


def test_attention_is_pytorchs_scaled_dot_product() -> None:
    """With a head dim that does not follow from the hidden size: the scale is that of the head dim."""
    attention = Attention(tiny_config(head_dim=10, positions="learned")).double()
    randomise_(attention)
    x_BSH, positions_B2S, visible_BSS = random(1, 5, 12), torch.zeros(1, 2, 5).long(), visibility([[(0, 2, 3)]], 5)
    query, key, value = (
        x.transpose(1, 2) for x in attention.query_key_value(attention.linear_qkv(x_BSH), positions_B2S)
    )
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible_BSS[:, None])
    expected = attention.linear_proj(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x_BSH, positions_B2S, visible_BSS), expected)


# FFN and layers


@pytest.mark.parametrize(
    ("ffn", "activation"),
    [("geglu", 2.5 * 0.5 * (1 + math.erf(2.5 / math.sqrt(2)))), ("swiglu", 2.5 / (1 + math.exp(-2.5)))],
)
def test_first_half_of_a_gated_ffn_is_activated(ffn: str, activation: float) -> None:
    mlp = FFN(tiny_config(hidden_size=1, num_attention_heads=1, ffn_hidden_size=1, ffn=ffn))
    state = {"linear_fc1.weight": [[2.0], [3.0]], "linear_fc1.bias": [0.5, -1.0], "linear_fc2.weight": [[7.0]]}
    mlp.load_state_dict({name: torch.tensor(value) for name, value in (state | {"linear_fc2.bias": [0.25]}).items()})
    assert mlp(torch.ones(1, 1, 1)).item() == pytest.approx(7 * activation * 2.0 + 0.25, rel=1e-6)


def test_plain_ffn_by_hand() -> None:
    mlp = FFN(tiny_config(hidden_size=1, num_attention_heads=1, ffn_hidden_size=1, ffn="gelu", biases=False))
    mlp.load_state_dict({"linear_fc1.weight": torch.tensor([[2.5]]), "linear_fc2.weight": torch.tensor([[7.0]])})
    gelu = 2.5 * 0.5 * (1 + math.erf(2.5 / math.sqrt(2)))
    assert mlp(torch.ones(1, 1, 1)).item() == pytest.approx(7 * gelu, rel=1e-6)


class Sublayer(nn.Module):
    """Stands in for attention or FFN: a function of its input alone, whatever else it is given."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, *unused: Tensor) -> Tensor:
        return self.function(x)


Norms = Mapping[str, Callable[[Tensor], Tensor]]


def deepnorm(x: Tensor, norm: Norms) -> Tensor:
    h = norm["input"](x)
    g = norm["pre_mlp"](math.sqrt(6) * h + h.sin())  # three layers
    return math.sqrt(6) * g + g.exp()


def pre(x: Tensor, norm: Norms) -> Tensor:
    y = x + norm["input"](x).sin()
    return y + norm["pre_mlp"](y).exp()


def post(x: Tensor, norm: Norms) -> Tensor:
    y = norm["post_attention"](x + x.sin())
    return norm["post_mlp"](y + y.exp())


def sandwich(x: Tensor, norm: Norms) -> Tensor:
    y = x + norm["post_attention"](norm["input"](x).sin())
    return y + norm["post_mlp"](norm["pre_mlp"](y).exp())


def parallel(x: Tensor, norm: Norms) -> Tensor:
    return x + norm["input"](x).sin() + norm["input"](x).exp()


@pytest.mark.parametrize("arrangement", [deepnorm, pre, post, sandwich, parallel])
def test_norms_and_residuals_stand_where_they_should(arrangement: Callable[[Tensor, Norms], Tensor]) -> None:
    """Attention is a sine and the FFN an exponential, so that the layer is a formula of its norms."""
    name = arrangement.__name__
    placement = {"norm_placement": "pre", "parallel_block": True} if name == "parallel" else {"norm_placement": name}
    layer = build_layer(tiny_config(num_layers=3, **placement))
    del layer.self_attention, layer.mlp
    layer.self_attention, layer.mlp = Sublayer(torch.sin), Sublayer(torch.exp)  # type: ignore[assignment]
    randomise_(layer)
    # Asking for a norm that the layer lacks is an error, and so is one that the formula does not ask for.
    norms = {
        child.removesuffix("_layernorm"): partial(
            functional.layer_norm, normalized_shape=(12,), weight=module.weight, bias=module.bias
        )
        for child, module in layer.named_children()
        if isinstance(module, Norm)
    }
    assert len(norms) == {"parallel": 1, "sandwich": 4}.get(name, 2)
    x_BSH = random(2, 3, 12, seed=20)
    torch.testing.assert_close(layer(x_BSH, None, None), arrangement(x_BSH, norms))
