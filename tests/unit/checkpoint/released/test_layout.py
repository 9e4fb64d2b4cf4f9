"""The table of names and cuts, against the model's own and against plain chunking."""

import pytest
import torch

from glm130b.checkpoint.released.layout import (
    ReleasedTensor,
    check_cut,
    check_model,
    released_tensors,
    rotary_width,
    shard_file,
)
from glm130b.config.errors import UserError
from glm130b.config.load import load_config
from tests.conftest import ROOT
from tests.harness.pool import run_distributed
from tests.harness.reference_glm import from_released_layout
from tests.harness.released import released_weights, shard_of
from tests.harness.synthetic import small_config
from tests.harness.training import initial_weights

MODEL = small_config().model


def test_our_names_and_shapes_are_the_models() -> None:
    model = {
        name: tuple(weight.shape) for name, weight in run_distributed(initial_weights, 1, small_config())[0].items()
    }
    assert {tensor.name: tensor.shape for tensor in released_tensors(MODEL)} == model


def test_their_names_and_shapes_are_the_facts() -> None:
    facts = {key: tuple(whole.shape) for key, whole in released_weights(MODEL).items() if "rotary" not in key}
    assert [(tensor.key, tensor.shape) for tensor in released_tensors(MODEL)] == list(facts.items())


@pytest.mark.parametrize("num_shards", [1, 2, 4])
def test_spans_put_shards_together(num_shards: int) -> None:
    whole = released_weights(MODEL)
    expected = from_released_layout(whole)
    for tensor in released_tensors(MODEL):
        joined = torch.full(tensor.shape, torch.nan, dtype=torch.float16)
        dim = tensor.cut or 0
        for rank in range(num_shards):
            shard = shard_of(tensor.key, whole[tensor.key], rank, num_shards)
            assert tuple(shard.shape) == tensor.shard_shape(num_shards)
            spans = tensor.spans(rank, num_shards)
            assert sum(span.length for span in spans) == shard.shape[dim]
            for local, start, length in spans:
                joined.narrow(dim, start, length).copy_(shard.narrow(dim, local, length))
        assert torch.equal(joined, expected[tensor.name]), tensor.name


def test_the_release_is_as_published() -> None:
    model = load_config(ROOT / "configs" / "glm-130b.yaml").model
    check_model(model)
    check_cut(model, 8)
    shapes = {tensor.key: tensor.shard_shape(8) for tensor in released_tensors(model)}
    assert shapes["transformer.word_embeddings.weight"] == (18816, 12288)
    assert shapes["transformer.layers.69.attention.query_key_value.weight"] == (4608, 12288)
    assert shapes["transformer.layers.69.attention.dense.weight"] == (12288, 1536)
    assert shapes["transformer.layers.0.mlp.dense_h_to_4h.bias"] == (8192,)
    assert shapes["transformer.layers.0.mlp.dense_4h_to_h.weight"] == (12288, 4096)
    assert shapes["transformer.layers.0.mlp.dense_4h_to_h.bias"] == (12288,)
    assert len(shapes) == 3 + 70 * 12
    assert rotary_width(model) // 2 == 64
    assert shard_file(7) == "mp_rank_07_model_states.pt"


def test_every_key_without_a_place_is_told_at_once() -> None:
    # Combinations that no config may have, so that each key is wrong by itself.
    wrong = {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "positions": "alibi",
        "ffn": "swiglu",
        "norm_placement": "pre",
        "normalization": "rmsnorm",
        "parallel_block": True,
        "embedding_norm": True,
        "biases": False,
        "tie_embedding": False,
    }
    with pytest.raises(UserError) as raised:
        check_model(MODEL.model_copy(update=wrong))
    problems = raised.value.problems
    assert [problem.partition(":")[0] for problem in problems] == [f"model.{key}" for key in wrong]
    assert problems[3] == (
        "model.ffn: 'swiglu' has no place in the released layout; write geglu, or keep such a model in checkpoints of "
        "its own run"
    )


@pytest.mark.parametrize(
    "same", [{"num_key_value_heads": 4}, {"head_dim": 8}, {"positions": "rope_2d"}, {"attention": "causal"}]
)
def test_what_is_the_same_or_no_weight_has_a_place(same: dict[str, object]) -> None:
    check_model(MODEL.model_copy(update=same))


def test_an_uneven_cut_names_the_keys() -> None:
    with pytest.raises(UserError) as raised:
        check_cut(MODEL, 32)
    keys = [problem.partition(":")[0] for problem in raised.value.problems]
    assert keys == ["model.num_attention_heads", "model.ffn_hidden_size"]


def test_two_dimensional_positions_turn_half_a_head() -> None:
    assert rotary_width(MODEL) == 8
    assert rotary_width(MODEL.model_copy(update={"positions": "rope_2d"})) == 4


def test_a_copied_tensor_is_whole_in_every_shard() -> None:
    copied = ReleasedTensor("key", "name", (6,))
    assert copied.shard_shape(3) == (6,)
    assert copied.spans(2, 3) == ((0, 0, 6),)
