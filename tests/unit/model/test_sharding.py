"""Where each piece of a stage lies in the whole model."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glm130b.config.derived import num_parameters
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.sharding import EMBEDDING, Piece, cut, parameter_shards
from tests.harness.pool import run_distributed
from tests.harness.reference_glm import ReferenceGLM
from tests.harness.stage import LAYOUTS, in_layout, initial_stage
from tests.harness.synthetic import small_config

Described = tuple[str, tuple[int, ...], tuple[int, ...], int, tuple[Piece, ...], bool, bool]


def describe(launch: Launch, config: RunConfig) -> list[Described]:
    """The shards of one rank, without their values."""
    with initial_stage(launch, config) as stage:
        assert [shard.parameter for shard in parameter_shards(stage)] == list(stage.parameters())
        return [
            (s.name, tuple(s.parameter.shape), s.whole_shape, s.dim, s.pieces, s.is_replicated, s.is_tied_copy)
            for s in parameter_shards(stage)
        ]


def whole_shapes(config: RunConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the oracle, which is written from the papers."""
    with torch.device("meta"):
        oracle = ReferenceGLM(config.model)
    return {name: tuple(parameter.shape) for name, parameter in oracle.named_parameters()}


def assert_tiled(config: RunConfig, ranks: list[list[Described]]) -> None:
    """The pieces of all ranks are every whole tensor of the oracle, as often as the layout holds it."""
    parallel = config.parallel
    held: dict[str, torch.Tensor] = {}
    copies: Counter[str] = Counter()
    for shards in ranks:
        for name, local_shape, whole_shape, dim, pieces, is_replicated, is_tied_copy in shards:
            count = held.setdefault(name, torch.zeros(whole_shape, dtype=torch.int))
            assert tuple(count.shape) == whole_shape
            assert sum(piece.length for piece in pieces) == local_shape[dim]
            for piece in pieces:
                count.narrow(dim, piece.whole_start, piece.length).add_(1)
            copies[name] = max(copies[name], (parallel.tensor if is_replicated else 1) * (parallel.data or 1))
            assert not is_tied_copy or (name == EMBEDDING and parallel.pipeline > 1)
    if parallel.pipeline > 1 and config.model.tie_embedding:
        copies[EMBEDDING] *= 2  # the first stage's and the last stage's

    assert {name: tuple(count.shape) for name, count in held.items()} == whole_shapes(config)
    assert all((count == copies[name]).all() for name, count in held.items())
    assert sum(count.numel() for count in held.values()) == num_parameters(config.model)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_pieces_of_all_ranks_tile_every_whole_tensor(layout: str) -> None:
    config, world_size = in_layout(small_config(), layout)
    assert_tiled(config, run_distributed(describe, world_size, config))


@pytest.mark.parametrize(
    "model",
    [
        {"tie_embedding": False, "positions": "learned_2d", "max_positions": 7, "embedding_norm": True},
        {"norm_placement": "post", "ffn": "gelu", "num_key_value_heads": 2},
        {"norm_placement": "sandwich", "ffn": "swiglu", "num_key_value_heads": 1, "biases": False},
    ],
    ids=str,
)
def test_the_pieces_of_the_family_tile_too(model: dict[str, Any]) -> None:
    config, world_size = in_layout(small_config(model=model), "TP2 PP2")
    assert_tiled(config, run_distributed(describe, world_size, config))


def cuts_of(shards: list[Described]) -> dict[str, tuple[int, tuple[Piece, ...]]]:
    """(dimension, pieces) of what one rank holds a part of, by name."""
    return {name: (dim, pieces) for name, _, _, dim, pieces, is_replicated, _ in shards if not is_replicated}


def test_what_is_cut_and_how() -> None:
    config, world_size = in_layout(small_config(), "TP2 PP2")
    cuts = cuts_of(run_distributed(describe, world_size, config)[1])
    layer = "decoder.layers.1"
    assert cuts[EMBEDDING] == (0, (Piece(0, 48, 48),))
    assert cuts[f"{layer}.self_attention.linear_qkv.weight"] == (0, (Piece(0, 48, 48),))
    assert cuts[f"{layer}.self_attention.linear_qkv.bias"] == (0, (Piece(0, 48, 48),))
    assert cuts[f"{layer}.self_attention.linear_proj.weight"] == (1, (Piece(0, 16, 16),))
    assert cuts[f"{layer}.mlp.linear_fc1.weight"] == (0, (Piece(0, 24, 24), Piece(24, 72, 24)))
    assert cuts[f"{layer}.mlp.linear_fc1.bias"] == (0, (Piece(0, 24, 24), Piece(24, 72, 24)))
    assert cuts[f"{layer}.mlp.linear_fc2.weight"] == (1, (Piece(0, 24, 24),))
    assert len(cuts) == 1 + 2 * 6


@pytest.mark.parametrize(
    ("heads", "rows"),
    [
        (2, Piece(0, 32, 32)),  # two queries, key and value of eight rows each: one whole group on each rank
        (1, Piece(0, 24, 24)),  # four queries, key and value: half of one group on each rank
    ],
)
def test_shared_key_value_heads_are_cut_evenly(heads: int, rows: Piece) -> None:
    config, world_size = in_layout(small_config(model={"num_key_value_heads": heads}), "TP2")
    cuts = cuts_of(run_distributed(describe, world_size, config)[1])
    for parameter in ("weight", "bias"):
        assert cuts[f"decoder.layers.3.self_attention.linear_qkv.{parameter}"] == (0, (rows,))


def test_a_plain_ffn_has_one_piece() -> None:
    config, world_size = in_layout(small_config(model={"ffn": "gelu"}), "TP2")
    cuts = cuts_of(run_distributed(describe, world_size, config)[1])
    assert cuts["decoder.layers.0.mlp.linear_fc1.weight"] == (0, (Piece(0, 24, 24),))


def layers_and_ends(shards: list[Described]) -> list[str]:
    """Layers by their index and the parameters outside of layers by their names, in the order of the stage."""
    found = [name.split(".")[2] if ".layers." in name else name for name, *_ in shards]
    return list(dict.fromkeys(found))


def test_names_count_layers_over_uneven_stages() -> None:
    """Six layers over four stages are 1, 2, 2, 1; the last stage's projection goes by the embedding's name."""
    config = small_config(model={"num_layers": 6}, parallel={"pipeline": 4, "embedding_and_head_count_as_layers": True})
    stages = run_distributed(describe, 4, config)
    norm = ["decoder.final_layernorm.weight", "decoder.final_layernorm.bias"]
    assert [layers_and_ends(shards) for shards in stages] == [
        [EMBEDDING, "0"],
        ["1", "2"],
        ["3", "4"],
        ["5", *norm, EMBEDDING],
    ]
    tied = [(name, is_tied_copy) for shards in stages for name, *_, is_tied_copy in shards if name == EMBEDDING]
    assert tied == [(EMBEDDING, False), (EMBEDDING, True)]


def test_names_count_layers_over_virtual_stages() -> None:
    """Eight layers in two chunks on each of two stages: 0 1 and 4 5 on the first, 2 3 and 6 7 on the last."""
    config = small_config(model={"num_layers": 8}, parallel={"pipeline": 2, "virtual_stages": 2})
    first, last = ranks = run_distributed(describe, 2, config)
    assert_tiled(config, ranks)
    norm = ["decoder.final_layernorm.weight", "decoder.final_layernorm.bias"]
    assert layers_and_ends(first) == [EMBEDDING, "0", "1", "4", "5"]
    assert layers_and_ends(last) == ["2", "3", "6", "7", *norm, EMBEDDING]


def test_an_untied_projection_has_its_own_name() -> None:
    config = small_config(model={"tie_embedding": False, "norm_placement": "post"}, parallel={"pipeline": 2})
    first, last = run_distributed(describe, 2, config)
    assert layers_and_ends(first) == [EMBEDDING, "0", "1"]
    assert layers_and_ends(last) == ["2", "3", "output_layer.weight"]
    assert not any(is_tied_copy for *_, is_tied_copy in [*first, *last])


@given(tensor=st.integers(1, 8), stride=st.integers(1, 3), length=st.integers(1, 50))
def test_cut_gives_every_slice_to_one_rank(tensor: int, stride: int, length: int) -> None:
    whole = tensor * stride * length
    owners: list[int] = []
    for rank in range(tensor):
        pieces = cut(whole, tensor, rank, stride)
        local = [i for piece in pieces for i in range(piece.local_start, piece.local_start + piece.length)]
        assert local == list(range(whole // tensor))  # what the rank holds, in order and without gaps
        for part, piece in enumerate(pieces):
            assert piece.whole_start // (tensor * length) == part  # one piece from each stacked matrix
            owners += range(piece.whole_start, piece.whole_start + piece.length)
    assert sorted(owners) == list(range(whole))
