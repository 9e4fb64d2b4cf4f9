"""The oracle itself, against hand computation, PyTorch's own transformer and the public model's vectors."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from glm130b.data.objectives.row import Segment
from tests.harness.reference_glm import Embedding, ReferenceGLM, from_released_layout, row_losses, visibility
from tests.harness.reference_layers import DeepNormLayer
from tests.unit.harness.tiny_glm import (
    LENGTH,
    SEGMENTS,
    VOCABULARY,
    logits_of,
    random_row,
    tiny_config,
    tiny_model,
    tokens_and_positions,
)

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference"
POSITIONS = ("rope", "rope_2d", "learned", "learned_2d", "alibi")
BOTH = ("weight", "bias")


def shapes(**switches: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tiny_model(**switches).state_dict().items()}


def test_names_and_shapes() -> None:
    layer = {
        "input_layernorm.weight": (12,),
        "input_layernorm.bias": (12,),
        "self_attention.linear_qkv.weight": (36, 12),
        "self_attention.linear_qkv.bias": (36,),
        "self_attention.linear_proj.weight": (12, 12),
        "self_attention.linear_proj.bias": (12,),
        "pre_mlp_layernorm.weight": (12,),
        "pre_mlp_layernorm.bias": (12,),
        "mlp.linear_fc1.weight": (40, 12),
        "mlp.linear_fc1.bias": (40,),
        "mlp.linear_fc2.weight": (12, 20),
        "mlp.linear_fc2.bias": (12,),
    }
    expected = {f"decoder.layers.{i}.{name}": shape for i in range(2) for name, shape in layer.items()} | {
        "embedding.word.weight": (VOCABULARY, 12),
        "decoder.final_layernorm.weight": (12,),
        "decoder.final_layernorm.bias": (12,),
    }
    assert shapes() == expected


def norms(*names: str) -> set[str]:
    return {f"decoder.layers.{i}.{name}_layernorm.{half}" for i in range(2) for name in names for half in BOTH}


POSTS = norms("post_attention", "post_mlp")
FINAL = {f"decoder.final_layernorm.{half}" for half in BOTH}


@pytest.mark.parametrize(
    ("switches", "added", "removed"),
    [
        ({"norm_placement": "pre"}, set(), set()),
        ({"norm_placement": "post"}, POSTS, norms("input", "pre_mlp") | FINAL),
        ({"norm_placement": "sandwich"}, POSTS, set()),
        ({"norm_placement": "pre", "parallel_block": True}, set(), norms("pre_mlp")),
        ({"positions": "rope_2d", "head_dim": 4}, set(), set()),
        ({"positions": "alibi"}, set(), set()),
        ({"positions": "learned"}, {"embedding.position.weight"}, set()),
        ({"positions": "learned_2d"}, {"embedding.position.weight", "embedding.block_position.weight"}, set()),
        ({"embedding_norm": True}, {f"embedding.norm.{half}" for half in BOTH}, set()),
        ({"tie_embedding": False}, {"output_layer.weight"}, set()),
        ({"biases": False}, set(), {name for name in shapes() if name.endswith("bias")}),
        ({"normalization": "rmsnorm"}, set(), {name for name in shapes() if name.endswith("layernorm.bias")}),
    ],
)
def test_switches_add_and_remove_tensors(switches: dict[str, Any], added: set[str], removed: set[str]) -> None:
    ours, default = shapes(**switches).keys(), shapes().keys()
    assert ours - default == added
    assert default - ours == removed


def test_visibility_by_hand() -> None:
    """A segment of 2 context and 2 target tokens, a segment of 1 and 1, one padding token; rows are queries."""
    drawn = """
        xx.....
        xx.....
        xxx....
        xxxx...
        ....x..
        ....xx.
        ......x
    """
    expected = [[mark == "x" for mark in line] for line in drawn.split()]
    assert visibility([[Segment(0, 2, 2), Segment(4, 1, 1)]], 7).tolist() == [expected]


def test_visibility_differs_by_row() -> None:
    first, second = visibility([[Segment(0, 3, 0)], [Segment(0, 0, 3)]], 3).tolist()
    assert first == [[True] * 3] * 3
    assert second == [[True, False, False], [True, True, False], [True, True, True]]


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("attention", ["prefix", "causal"])
def test_packed_segments_do_not_see_each_other(attention: str, positions: str) -> None:
    model, row = tiny_model(positions=positions, attention=attention, head_dim=8), random_row(0)
    tokens_BS, positions_B2S = tokens_and_positions(row)
    packed = logits_of(model, row)
    for segment in SEGMENTS:
        inside = slice(segment.start, segment.end)
        alone = model(tokens_BS[:, inside], positions_B2S[:, :, inside], [[segment._replace(start=0)]])
        torch.testing.assert_close(packed[inside], alone[0])


@pytest.mark.parametrize(
    ("attention", "changed", "first_affected", "end_affected"),
    [
        ("prefix", 1, 0, 5),
        ("prefix", 4, 4, 5),
        ("prefix", 9, 9, 11),
        ("prefix", 11, 11, 12),
        ("causal", 1, 1, 5),
        ("causal", 6, 6, 11),
    ],
)
def test_a_token_reaches_whom_it_should(attention: str, changed: int, first_affected: int, end_affected: int) -> None:
    """A context token its whole segment, or under causal attention what follows; a target itself and later targets,
    padding itself."""
    model, row = tiny_model(attention=attention), random_row(0)
    tokens = row.tokens.copy()
    tokens[changed] = (tokens[changed] + 1) % VOCABULARY
    moved = (logits_of(model, row) - logits_of(model, replace(row, tokens=tokens))).abs().amax(dim=-1) > 1e-9
    assert moved.tolist() == [first_affected <= position < end_affected for position in range(LENGTH)]


@pytest.mark.parametrize("positions", POSITIONS)
def test_which_positions_matter(positions: str) -> None:
    """Learned tables and one-dimensional kinds read their rows; moving all of a sample changes only learned ones."""
    model, row = tiny_model(positions=positions, head_dim=8), random_row(0)

    def moves(**changed: Any) -> bool:
        return not torch.allclose(logits_of(model, row), logits_of(model, replace(row, **changed)), atol=1e-5)

    assert moves(positions=row.positions[::-1].copy())
    assert moves(block_positions=row.block_positions[::-1].copy()) == positions.endswith("_2d")
    assert moves(positions=row.positions + 3) == positions.startswith("learned")


def test_embedding_adds_positions_then_normalises() -> None:
    embedding = Embedding(tiny_config(positions="learned_2d", embedding_norm=True))
    assert embedding.position is not None
    assert embedding.block_position is not None
    word, position, block = (table.weight for table in (embedding.word, embedding.position, embedding.block_position))
    embedded = embedding(torch.tensor([[7, 3]]), torch.tensor([[[4, 5], [0, 2]]]), 1.0)
    expected = torch.stack((word[7] + position[4] + block[0], word[3] + position[5] + block[2]))
    torch.testing.assert_close(embedded[0], functional.layer_norm(expected, (12,)))


@pytest.mark.parametrize("norm_placement", ["pre", "post"])
def test_a_gpt_is_pytorchs_transformer(norm_placement: str) -> None:
    """Learned positions, plain GELU, causal attention and an untied head: GPT-2, or with post-norm GPT."""
    model = tiny_model(
        norm_placement=norm_placement, positions="learned", ffn="gelu", attention="causal", tie_embedding=False
    )
    theirs = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(
            12, 3, 20, activation="gelu", batch_first=True, dropout=0.0, norm_first=norm_placement == "pre"
        ),
        num_layers=2,
        enable_nested_tensor=False,
    ).double()
    for layer, ours in zip(theirs.layers, model.decoder.layers, strict=True):
        layer.load_state_dict(to_pytorch(ours.state_dict(), norm_placement))
    row = replace(random_row(0), segments=(Segment(0, 5, 7),))
    tokens_BS, positions_B2S = tokens_and_positions(row)
    assert model.embedding.position is not None
    assert model.output_layer is not None
    x_BSH = model.embedding.word(tokens_BS) + model.embedding.position(positions_B2S[:, 0])
    hidden_BSH = theirs(x_BSH, mask=nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64))
    if model.decoder.final_layernorm is not None:
        hidden_BSH = model.decoder.final_layernorm(hidden_BSH)
    torch.testing.assert_close(logits_of(model, row), model.output_layer(hidden_BSH)[0])


def to_pytorch(ours: Mapping[str, Tensor], norm_placement: str) -> dict[str, Tensor]:
    """The weights of one layer under the names of ``nn.TransformerEncoderLayer``, q, k and v one after another."""
    first, second = ("input", "pre_mlp") if norm_placement == "pre" else ("post_attention", "post_mlp")
    theirs: dict[str, Tensor] = {}
    for half in BOTH:
        rows = ours[f"self_attention.linear_qkv.{half}"].unflatten(0, (3, 3, 4))
        theirs |= {
            f"self_attn.in_proj_{half}": rows.transpose(0, 1).flatten(0, 2),
            f"self_attn.out_proj.{half}": ours[f"self_attention.linear_proj.{half}"],
            f"linear1.{half}": ours[f"mlp.linear_fc1.{half}"],
            f"linear2.{half}": ours[f"mlp.linear_fc2.{half}"],
            f"norm1.{half}": ours[f"{first}_layernorm.{half}"],
            f"norm2.{half}": ours[f"{second}_layernorm.{half}"],
        }
    return theirs


def test_row_losses_by_hand() -> None:
    logits_BSV = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0], [5.0, 1.0]]])
    losses = row_losses(logits_BSV, torch.tensor([[0, 1, 0]]), torch.tensor([[0.5, 0.5, 0.0]]))
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx([0.5 * math.log(4) + 0.5 * math.log(2)])


def test_row_losses_of_half_precision_logits_are_fp32() -> None:
    logits_BSV = torch.tensor([[[0.0, math.log(3.0)]]], dtype=torch.float16)
    assert row_losses(logits_BSV, torch.tensor([[0]]), torch.ones(1, 1)).dtype == torch.float32


def test_embedding_gradient_shrink_leaves_logits_alone() -> None:
    model, row = tiny_model(torch.float32), random_row(0)
    shrunk = model(*tokens_and_positions(row), [row.segments], input_alpha=0.1, logit_alpha=0.3)
    assert torch.equal(logits_of(model, row), shrunk[0])


# The public model's vectors

Case = Mapping[str, NDArray[np.generic]]


def released_glm(**switches: Any) -> ReferenceGLM:
    checkpoint = REFERENCE / "released_layout_tp1" / "49300" / "mp_rank_00_model_states.pt"
    if not checkpoint.is_file():
        pytest.skip("the public model's vectors (../shared/reference) are not on this machine")
    sizes = {"num_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "ffn_hidden_size": 176, "vocab_size": 384}
    model = ReferenceGLM(tiny_config(**sizes, **switches))
    model.load_state_dict(from_released_layout(torch.load(checkpoint, weights_only=True)["module"]))
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def released_model() -> ReferenceGLM:
    return released_glm()


def positions_of(case: Case) -> Tensor:
    """Positions [1, 2, S] of a model with one-dimensional positions."""
    return torch.from_numpy(np.stack((case["position_ids"], np.zeros_like(case["position_ids"])), axis=1))


def run_case(model: ReferenceGLM, positions_B2S: Tensor | None = None) -> tuple[Tensor, Case]:
    case = dict(np.load(REFERENCE / "case_a_gmask.npz"))
    context_length, length = int(case["division"][0]), case["input_ids"].shape[1]
    segments = [[Segment(0, context_length, length - context_length)]]
    assert np.array_equal(~visibility(segments, length).numpy(), case["attention_mask"][:, 0])
    positions_B2S = positions_of(case) if positions_B2S is None else positions_B2S
    return model(torch.from_numpy(case["input_ids"]), positions_B2S, segments), case


def test_logits_and_loss_of_the_public_model(released_model: ReferenceGLM) -> None:
    logits, case = run_case(released_model)
    assert np.abs(logits.numpy() - case["logits"]).max() <= 1e-5
    loss_mask = torch.from_numpy(case["loss_mask"]).float()
    loss = row_losses(logits, torch.from_numpy(case["targets"]), loss_mask / loss_mask.sum())
    assert loss.item() == pytest.approx(float(case["loss"]), abs=1e-5)


def test_logits_of_the_public_model_with_two_dimensional_positions() -> None:
    model = released_glm(positions="rope_2d")  # skips without the vectors
    positions_B2S = torch.from_numpy(np.load(REFERENCE / "case_a_gmask.npz")["position_ids_2d"])
    logits, case = run_case(model, positions_B2S)
    assert np.abs(logits.numpy() - case["logits_2d"]).max() <= 1e-5


def test_logits_of_the_public_model_with_its_fp16_table() -> None:
    """The two tables are 8e-4 apart; a table rounded at fewer places is at least 5e-4 away from the vectors."""
    logits, case = run_case(released_glm(rotary_table="fp16"))
    assert np.abs(logits.numpy() - case["logits_rope_fp16"]).max() <= 1e-5


def test_states_of_the_public_model(released_model: ReferenceGLM) -> None:
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _module, _arguments, output: outputs.__setitem__(name, output)

    assert released_model.decoder.final_layernorm is not None
    layers = [layer for layer in released_model.decoder.layers if isinstance(layer, DeepNormLayer)]
    handles = [released_model.decoder.final_layernorm.register_forward_hook(record("final_layernorm"))]
    for i, layer in enumerate(layers):
        recorded: dict[str, nn.Module] = {
            "input_layernorm": layer.input_layernorm,
            "qkv": layer.self_attention.linear_qkv,
            "attention_out": layer.self_attention.linear_proj,
            "post_attention_layernorm": layer.pre_mlp_layernorm,
            "mlp_out": layer.mlp,
            "output": layer,
        }
        handles += [module.register_forward_hook(record(f"layer{i}.{name}")) for name, module in recorded.items()]
    _, case = run_case(released_model)
    for handle in handles:
        handle.remove()

    outputs["embedding"] = released_model.embedding.word.weight[torch.from_numpy(case["input_ids"])]
    positions = positions_of(case)
    for i, layer in enumerate(layers):
        _, key, value = layer.self_attention.query_key_value(outputs[f"layer{i}.qkv"], positions)
        outputs |= {f"layer{i}.key_after_rope": key, f"layer{i}.value": value}

    states = dict(np.load(REFERENCE / "case_a_gmask_states.npz"))
    assert outputs.keys() == states.keys()
    for name, state in states.items():
        assert np.abs(outputs[name].numpy() - state).max() <= 1e-5, name
