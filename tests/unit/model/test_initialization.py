"""Initial weights: their law, matrix by matrix, and that no layout can be told from them."""

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from glm130b.config.model import ModelConfig
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model import initialization
from glm130b.model.sharding import Piece, parameter_shards
from tests.harness.pool import run_distributed
from tests.harness.stage import initial_stage
from tests.harness.synthetic import small_config

H, N, F, V, P, L = 160, 4, 176, 520, 90, 4
"""V / 2, 3 H / 2, F and F / 2 are no multiples of the 64 slices that share a generator."""
B = (2 * L) ** -0.5

CASES: dict[str, dict[str, Any]] = {
    "GLM-130B": {},
    "deepnorm, grouped heads, plain FFN": {"num_key_value_heads": 2, "head_dim": 24, "ffn": "gelu"},
    "pre, learned_2d": {"norm_placement": "pre", "positions": "learned_2d", "max_positions": P, "ffn": "gelu"},
    "post, embedding norm": {"norm_placement": "post", "embedding_norm": True},
    "sandwich, rmsnorm": {"norm_placement": "sandwich", "normalization": "rmsnorm"},
    "parallel, one key/value head, untied": {
        "norm_placement": "pre",
        "parallel_block": True,
        "num_key_value_heads": 1,
        "ffn": "swiglu",
        "biases": False,
        "tie_embedding": False,
    },
    "initial_std": {
        "norm_placement": "pre",
        "num_key_value_heads": 2,
        "positions": "learned",
        "max_positions": P,
        "tie_embedding": False,
        "initial_std": 0.02,
    },
}

LAYOUTS: dict[str, dict[str, int]] = {
    "TP1": {},
    "TP2": {"tensor": 2},
    "TP4": {"tensor": 4},
    "PP2": {"pipeline": 2},
    "PP2 VPP2": {"pipeline": 2, "virtual_stages": 2},
    "TP2 PP2": {"tensor": 2, "pipeline": 2},
}

Shards = list[tuple[str, tuple[int, ...], int, tuple[Piece, ...], Tensor]]


def config(case: str = "GLM-130B", *, layout: str = "TP1", seed: int = 11, dtype: str = "fp32") -> RunConfig:
    sizes = {"num_layers": L, "hidden_size": H, "num_attention_heads": N, "ffn_hidden_size": F, "vocab_size": V}
    return small_config(
        model=sizes | CASES[case],
        precision={"dtype": dtype},
        parallel={"tensor": 1, "pipeline": 1, "data": 1} | LAYOUTS[layout],
        seed=seed,  # type: ignore[arg-type]
    )


def shards(launch: Launch, run: RunConfig) -> Shards:
    with initial_stage(launch, run) as stage:
        return [(s.name, s.whole_shape, s.dim, s.pieces, s.parameter.detach().clone()) for s in parameter_shards(stage)]


@cache
def whole_weights(
    case: str = "GLM-130B", layout: str = "TP1", seed: int = 11, dtype: str = "fp32"
) -> dict[str, Tensor]:
    """Whole tensors by name, put together from all ranks; where several hold an element, they agree on it."""
    run = config(case, layout=layout, seed=seed, dtype=dtype)
    whole: dict[str, Tensor] = {}
    for rank in run_distributed(shards, run.parallel.tensor * run.parallel.pipeline, run):
        for name, whole_shape, dim, pieces, values in rank:
            tensor = whole.setdefault(name, torch.full(whole_shape, math.nan, dtype=values.dtype))
            for piece in pieces:
                place = tensor.narrow(dim, piece.whole_start, piece.length)
                local = values.narrow(dim, piece.local_start, piece.length)
                assert place.isnan().all() or torch.equal(place, local), name
                place.copy_(local)
    return whole


# Their law


def matrices(name: str, tensor: Tensor, model: ModelConfig) -> Iterator[tuple[str, Tensor, float]]:
    """The matrices that a tensor is made of, of query, key and value each head's rows, and each one's standard
    deviation."""
    groups = model.num_key_value_heads or N
    width = model.head_dim or H // N
    deepnorm = B if model.norm_placement == "deepnorm" else 1.0

    def deviation(gain: float, fan_in: int, fan_out: int) -> float:
        return gain * (model.initial_std or math.sqrt(2 / (fan_in + fan_out)))

    match name.removeprefix("decoder.layers.").lstrip("0123456789."):
        case "self_attention.linear_qkv.weight":
            for group, rows in enumerate(tensor.chunk(groups)):
                *queries, key, value = rows.split(width)
                for head, query in enumerate(queries):
                    yield f"query {group}.{head}", query, deviation(1.0, H, N * width)
                yield f"key {group}", key, deviation(1.0, H, groups * width)
                yield f"value {group}", value, deviation(deepnorm, H, groups * width)
        case "self_attention.linear_proj.weight":
            yield "attention output", tensor, deviation(B, N * width, H)
        case "mlp.linear_fc1.weight" if model.ffn == "gelu":
            yield "first FFN matrix", tensor, deviation(deepnorm, H, F)
        case "mlp.linear_fc1.weight":
            for half, rows in zip(("gate", "linear"), tensor.chunk(2), strict=True):
                yield half, rows, deviation(deepnorm, H, F)
        case "mlp.linear_fc2.weight":
            yield "second FFN matrix", tensor, deviation(B, F, H)
        case "embedding.word.weight" | "output_layer.weight":
            yield name, tensor, deviation(1.0, V, H)
        case "embedding.position.weight" | "embedding.block_position.weight":
            yield name, tensor, deviation(1.0, P, H)
        case _:
            raise AssertionError(f"no law for {name}")


def normality(values: Tensor, deviation: float) -> dict[str, float]:
    """How far values are from a normal law, in standard errors of a sample of their size.

    The largest distance between the two distribution functions (Kolmogorov and Smirnov) is above 2.74 n ** -0.5 as
    seldom as a mean is above five standard errors, ``2 exp(-2 * 2.74 ** 2) = 6e-7``.
    """
    size, sample = values.numel(), (values.double().flatten() / deviation).sort().values
    steps = torch.arange(size, dtype=torch.float64) / size
    gap = torch.special.ndtr(sample) - steps
    distance = max(gap.max().item(), (1 / size - gap).max().item())
    return {
        "mean": sample.mean().item() * size**0.5,
        "deviation": (sample.std().item() - 1) * (2 * size) ** 0.5,
        "kurtosis": (((sample - sample.mean()) / sample.std()).pow(4).mean().item() - 3) * (size / 24) ** 0.5,
        "distribution": distance * size**0.5 * 5 / 2.74,
    }


@pytest.mark.parametrize("case", CASES)
def test_every_matrix_is_normal_with_its_deviation(case: str) -> None:
    model, kinds = config(case).model, set()
    for name, tensor in whole_weights(case).items():
        if tensor.ndim == 2:
            for label, values, deviation in matrices(name, tensor, model):
                kinds.add(label.split(" ")[0])
                far = {what: errors for what, errors in normality(values, deviation).items() if abs(errors) > 5}
                assert not far, f"{name}, {label}"
    assert {"query", "key", "value", "attention", "second", "embedding.word.weight"} <= kinds


@pytest.mark.parametrize("case", CASES)
def test_biases_are_zero_and_norms_one(case: str) -> None:
    vectors = {name: tensor for name, tensor in whole_weights(case).items() if tensor.ndim == 1}
    for name, tensor in vectors.items():
        assert (tensor == (0 if name.endswith("bias") else 1)).all(), name
    assert any(name.endswith("norm.weight") for name in vectors)


@pytest.mark.parametrize("wrong", ["uniform", "scaled", "shifted", "two deviations"])
def test_normality_is_seen_to_fail(wrong: str) -> None:
    values = torch.randn(6400, generator=torch.Generator().manual_seed(0))
    assert max(map(abs, normality(values, 1.0).values())) < 5
    spoiled = {
        "uniform": (values - values.mean()).erf() * values.std(),
        "scaled": values * 1.06,
        "shifted": values + 0.08,
        "two deviations": torch.cat((values[:3200] * 0.5, values[3200:] * 1.75**0.5)),
    }[wrong]
    assert max(map(abs, normality(spoiled, 1.0).values())) > 5


# No layout, no other matrix, no other seed can be told from them


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "TP1"])
@pytest.mark.parametrize(
    "case", ["GLM-130B", "deepnorm, grouped heads, plain FFN", "parallel, one key/value head, untied", "initial_std"]
)
def test_every_layout_has_the_same_weights_to_the_last_bit(case: str, layout: str) -> None:
    expected, ours = whole_weights(case), whole_weights(case, layout)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_has_the_same_weights_rounded(dtype: str, torch_dtype: torch.dtype) -> None:
    expected, ours = whole_weights(), whole_weights(layout="TP2", dtype=dtype)
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
