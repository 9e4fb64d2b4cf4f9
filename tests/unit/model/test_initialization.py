"""Initial weights: their law, matrix by matrix, and that no layout can be told from them."""

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.launcher import Launch
from glm130b.model import initialization
from glm130b.model.sharding import EMBEDDING, Piece, parameter_shards
from tests.harness.pool import run_distributed
from tests.harness.stage import LAYOUTS, in_layout, stage
from tests.harness.synthetic import small_config

H, N, D, F, V, L = 64, 4, 16, 176, 520, 2
"""V / 2, 3 H / 2, F and F / 2 are no multiples of the 64 slices that share a generator."""
BETA = (2 * L) ** -0.5

Shards = list[tuple[str, tuple[int, ...], int, tuple[Piece, ...], Tensor]]


def config(seed: int = 11, dtype: str = "fp32") -> RunConfig:
    sizes = {"num_layers": L, "hidden_size": H, "num_attention_heads": N, "ffn_hidden_size": F, "vocab_size": V}
    return small_config(model=sizes, precision={"dtype": dtype}, seed=seed)  # type: ignore[arg-type]


def shards(launch: Launch, run: RunConfig) -> Shards:
    with stage(launch, run) as model:
        return [(s.name, s.whole_shape, s.dim, s.pieces, s.parameter.detach().clone()) for s in parameter_shards(model)]


@cache
def whole_weights(layout: str = "TP1", seed: int = 11, dtype: str = "fp32") -> dict[str, Tensor]:
    """Whole tensors by name, put together from all ranks; where several hold an element, they agree on it."""
    run, world_size = in_layout(config(seed, dtype), layout)
    whole: dict[str, Tensor] = {}
    for rank in run_distributed(shards, world_size, run):
        for name, whole_shape, dim, pieces, values in rank:
            tensor = whole.setdefault(name, torch.full(whole_shape, math.nan, dtype=values.dtype))
            for piece in pieces:
                place = tensor.narrow(dim, piece.whole_start, piece.length)
                local = values.narrow(dim, piece.local_start, piece.length)
                assert place.isnan().all() or torch.equal(place, local), name
                place.copy_(local)
    return whole


def is_normal(values: Tensor, deviation: float) -> bool:
    """Mean, spread and share within one deviation, each within five standard errors of a normal law."""
    size = values.numel()
    return bool(
        values.mean().abs() < 5 * deviation / size**0.5
        and abs(values.std().item() / deviation - 1) < 5 / (2 * size) ** 0.5
        and abs((values.abs() < deviation).float().mean().item() - 0.6827) < 5 * (0.6827 * 0.3173 / size) ** 0.5
    )


def xavier(fan_in: int, fan_out: int) -> float:
    return math.sqrt(2 / (fan_in + fan_out))


@pytest.mark.parametrize("layer", range(L))
def test_matrices_of_a_layer(layer: int) -> None:
    weights, prefix = whole_weights(), f"decoder.layers.{layer}"
    assert is_normal(weights[f"{prefix}.self_attention.linear_proj.weight"], BETA * xavier(H, H))
    assert is_normal(weights[f"{prefix}.mlp.linear_fc2.weight"], BETA * xavier(F, H))
    for half in weights[f"{prefix}.mlp.linear_fc1.weight"].chunk(2):  # two matrices, each with its own fans
        assert is_normal(half, BETA * xavier(H, F))


@pytest.mark.parametrize("head", range(N))
def test_query_and_key_have_gain_one_and_value_beta(head: int) -> None:
    for layer in range(L):
        rows = whole_weights()[f"decoder.layers.{layer}.self_attention.linear_qkv.weight"].view(N, 3, D, H)[head]
        assert is_normal(rows[0], xavier(H, H))
        assert is_normal(rows[1], xavier(H, H))
        assert is_normal(rows[2], BETA * xavier(H, H))


def test_embedding() -> None:
    assert is_normal(whole_weights()[EMBEDDING], xavier(V, H))


def test_biases_are_zero_and_layernorms_one() -> None:
    for name, tensor in whole_weights().items():
        if name.endswith("bias"):
            assert not tensor.any(), name
        elif "layernorm" in name:
            assert (tensor == 1).all(), name


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "TP1"])
def test_every_layout_has_the_same_weights_to_the_last_bit(layout: str) -> None:
    expected, ours = whole_weights(), whole_weights(layout)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_has_the_same_weights_rounded(dtype: str, torch_dtype: torch.dtype) -> None:
    expected, ours = whole_weights(), whole_weights("TP2", dtype=dtype)
    assert all(torch.equal(ours[name], expected[name].to(torch_dtype)) for name in expected)


def test_the_cuts_do_not_fall_on_blocks() -> None:
    """Otherwise the comparison of layouts would say little."""
    assert all(size % initialization._BLOCK for size in (V // 2, 3 * H // 2, F, F // 2, H // 2))


def test_no_two_matrices_and_no_two_blocks_share_their_draws() -> None:
    first_values = [
        block.flatten()[:8]
        for name, tensor in whole_weights().items()
        if tensor.ndim == 2
        for block in tensor.split(initialization._BLOCK, dim=1 if name.endswith(("proj.weight", "fc2.weight")) else 0)
    ]
    normalised = torch.stack([values / values[0] for values in first_values])
    distances = torch.cdist(normalised, normalised) + torch.eye(len(normalised)) * 10
    assert len(first_values) > 20
    assert distances.min() > 1e-3


def test_another_seed_gives_other_weights_and_the_same_seed_the_same() -> None:
    expected, other = whole_weights(), whole_weights(seed=12)
    for name, tensor in expected.items():
        if tensor.ndim == 2:
            assert (tensor == other[name]).float().mean() < 0.01, name
    (again,) = run_distributed(shards, 1, config())
    assert all(torch.equal(values, expected[name]) for name, *_, values in again)
