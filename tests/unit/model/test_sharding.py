"""Where each piece of a stage lies in the whole model."""

from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glm130b.config.derived import num_parameters
from glm130b.config.sections import RunConfig
from glm130b.launcher import Launch
from glm130b.model.sharding import EMBEDDING, Piece, cut, parameter_shards
from tests.harness.pool import run_distributed
from tests.harness.reference_glm import ReferenceGLM
from tests.harness.stage import LAYOUTS, in_layout, stage
from tests.harness.synthetic import small_config

Described = tuple[str, tuple[int, ...], tuple[int, ...], int, tuple[Piece, ...], bool, bool]


def describe(launch: Launch, config: RunConfig) -> list[Described]:
    """The shards of one rank, without their values."""
    with stage(launch, config) as model:
        assert [shard.parameter for shard in parameter_shards(model)] == list(model.parameters())
        return [
            (s.name, tuple(s.parameter.shape), s.whole_shape, s.dim, s.pieces, s.is_replicated, s.is_tied_copy)
            for s in parameter_shards(model)
        ]


def whole_shapes(config: RunConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the oracle, which is written from the papers."""
    model = config.model
    with torch.device("meta"):
        oracle = ReferenceGLM(
            num_layers=model.num_layers,
            hidden_size=model.hidden_size,
            num_attention_heads=model.num_attention_heads,
            ffn_hidden_size=model.ffn_hidden_size,
            vocab_size=model.vocab_size,
        )
    return {name: tuple(parameter.shape) for name, parameter in oracle.named_parameters()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_pieces_of_all_ranks_tile_every_whole_tensor(layout: str) -> None:
    config, world_size = in_layout(small_config(), layout)
    tensor, pipeline, data = LAYOUTS[layout]
    held: dict[str, torch.Tensor] = {}
    copies: Counter[str] = Counter()
    for shards in run_distributed(describe, world_size, config):
        for name, local_shape, whole_shape, dim, pieces, is_replicated, is_tied_copy in shards:
            count = held.setdefault(name, torch.zeros(whole_shape, dtype=torch.int))
            assert tuple(count.shape) == whole_shape
            assert sum(piece.length for piece in pieces) == local_shape[dim]
            for piece in pieces:
                count.narrow(dim, piece.whole_start, piece.length).add_(1)
            copies[name] = max(copies[name], (tensor if is_replicated else 1) * data)
            assert not is_tied_copy or (name == EMBEDDING and pipeline > 1)
    if pipeline > 1:
        copies[EMBEDDING] *= 2  # the first stage's and the last stage's

    assert {name: tuple(count.shape) for name, count in held.items()} == whole_shapes(config)
    assert all((count == copies[name]).all() for name, count in held.items())
    assert sum(count.numel() for count in held.values()) == num_parameters(config.model)


def test_what_is_cut_and_how() -> None:
    config, world_size = in_layout(small_config(), "TP2 PP2")
    second_rank = run_distributed(describe, world_size, config)[1]
    cuts: dict[str, tuple[int, tuple[Piece, ...]]] = defaultdict(lambda: (0, ()))
    cuts |= {name: (dim, pieces) for name, _, _, dim, pieces, is_replicated, _ in second_rank if not is_replicated}
    layer = "decoder.layers.1"
    assert cuts[EMBEDDING] == (0, (Piece(0, 48, 48),))
    assert cuts[f"{layer}.self_attention.linear_qkv.weight"] == (0, (Piece(0, 48, 48),))
    assert cuts[f"{layer}.self_attention.linear_qkv.bias"] == (0, (Piece(0, 48, 48),))
    assert cuts[f"{layer}.self_attention.linear_proj.weight"] == (1, (Piece(0, 16, 16),))
    assert cuts[f"{layer}.mlp.linear_fc1.weight"] == (0, (Piece(0, 24, 24), Piece(24, 72, 24)))
    assert cuts[f"{layer}.mlp.linear_fc1.bias"] == (0, (Piece(0, 24, 24), Piece(24, 72, 24)))
    assert cuts[f"{layer}.mlp.linear_fc2.weight"] == (1, (Piece(0, 24, 24),))
    assert len(cuts) == 1 + 2 * 6


def test_names_count_layers_over_uneven_stages() -> None:
    """Six layers over four stages are 1, 2, 2, 1; the last stage's projection goes by the embedding's name."""
    config = small_config(model={"num_layers": 6}, parallel={"pipeline": 4, "embedding_and_head_count_as_layers": True})
    stages = run_distributed(describe, 4, config)
    layers = [sorted({int(name.split(".")[2]) for name, *_ in shards if ".layers." in name}) for shards in stages]
    assert layers == [[0], [1, 2], [3, 4], [5]]
    tied = [(name, is_tied_copy) for shards in stages for name, *_, is_tied_copy in shards if name == EMBEDDING]
    assert tied == [(EMBEDDING, False), (EMBEDDING, True)]
    assert not any("output_layer" in name for shards in stages for name, *_ in shards)


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
