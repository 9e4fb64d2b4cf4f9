"""The oracle itself, against hand computation, finite differences in fp64 and the public model's vectors."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glm130b.data.row import Row, Segment
from tests.harness.reference_glm import (
    Attention,
    DeepNormLayer,
    GatedMLP,
    ReferenceGLM,
    from_released_layout,
    rotate,
    row_losses,
    visibility,
)
from tests.harness.reference_training import Step, StepResult, backward, clip_gradients, rows_loss, train

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference"
VOCABULARY, LENGTH = 29, 12
SEGMENTS = (Segment(0, 3, 2), Segment(5, 2, 4))  # token 11 is padding


def tiny_model(dtype: torch.dtype = torch.float64) -> ReferenceGLM:
    """Two layers with every weight random, LayerNorms and biases too, so that no term of a gradient is zero."""
    model = ReferenceGLM(
        num_layers=2, hidden_size=12, num_attention_heads=3, ffn_hidden_size=20, vocab_size=VOCABULARY
    ).to(dtype)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("layernorm.weight") else 0.0
            parameter.copy_(mean + 0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def random_row(seed: int) -> Row:
    generator = np.random.default_rng(seed)
    loss_mask = np.zeros(LENGTH, dtype=bool)
    for segment in SEGMENTS:
        loss_mask[segment.start + segment.context_length : segment.end] = True
    return Row(
        tokens=generator.integers(VOCABULARY, size=LENGTH),
        targets=generator.integers(VOCABULARY, size=LENGTH),
        loss_mask=loss_mask,
        positions=np.array([0, 1, 2, 1, 1, 0, 1, 2, 3, 4, 5, 0]),
        block_positions=np.zeros(LENGTH, dtype=np.int64),
        segments=SEGMENTS,
        objective="mask",
        source="test",
    )


def logits_of(model: ReferenceGLM, row: Row) -> Tensor:
    return model(torch.from_numpy(row.tokens)[None], torch.from_numpy(row.positions)[None], [row.segments])[0]


def gradients(step: Step, micro_size: int | None = None) -> dict[str, Tensor]:
    model = tiny_model()
    backward(model, step, micro_size=micro_size)
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def step_of(num_rows: int) -> Step:
    return Step(rows=[random_row(seed) for seed in range(num_rows)], learning_rate=0.1)


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
        "embedding.weight": (VOCABULARY, 12),
        "decoder.final_layernorm.weight": (12,),
        "decoder.final_layernorm.bias": (12,),
    }
    assert {name: tuple(tensor.shape) for name, tensor in tiny_model().state_dict().items()} == expected


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


def test_fused_rows_are_query_key_value_of_one_head_after_another() -> None:
    attention = Attention(hidden_size=4, num_heads=2, rotary_base=1e4)
    query, key, value = attention.query_key_value(torch.arange(12.0).view(1, 1, 12), torch.tensor([[0]]))
    assert query.tolist() == [[[[0, 1], [6, 7]]]]
    assert key.tolist() == [[[[2, 3], [8, 9]]]]
    assert value.tolist() == [[[[4, 5], [10, 11]]]]


def test_first_half_of_the_ffn_is_gated() -> None:
    mlp = GatedMLP(hidden_size=1, ffn_hidden_size=1)
    state = {"linear_fc1.weight": [[2.0], [3.0]], "linear_fc1.bias": [0.5, -1.0], "linear_fc2.weight": [[7.0]]}
    mlp.load_state_dict({name: torch.tensor(value) for name, value in (state | {"linear_fc2.bias": [0.25]}).items()})
    gelu = 2.5 * 0.5 * (1 + math.erf(2.5 / math.sqrt(2)))
    assert mlp(torch.ones(1, 1, 1)).item() == pytest.approx(7 * gelu * 2.0 + 0.25, rel=1e-6)


def test_residuals_are_scaled_layernorm_outputs() -> None:
    """With attention and FFN silenced, a layer is ``a LN2(a LN1(x))``."""
    layer = DeepNormLayer(
        hidden_size=8, num_heads=2, ffn_hidden_size=4, layernorm_epsilon=1e-5, rotary_base=1e4, residual_scale=3.0
    )
    for linear in (layer.self_attention.linear_proj, layer.mlp.linear_fc2):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    x_BSH = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(0))

    def normalised(x: Tensor) -> Tensor:
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return (x - x.mean(dim=-1, keepdim=True)) / (variance + 1e-5).sqrt()

    out_BSH = layer(x_BSH, torch.tensor([[0, 1]]), visibility([[Segment(0, 2, 0)]], 2))
    torch.testing.assert_close(out_BSH, 3.0 * normalised(3.0 * normalised(x_BSH)))


def test_residual_scale_is_root_of_twice_the_layers() -> None:
    assert [layer.residual_scale for layer in tiny_model().decoder.layers] == [2.0, 2.0]


def test_packed_segments_do_not_see_each_other() -> None:
    model, row = tiny_model(), random_row(0)
    packed = logits_of(model, row)
    for segment in SEGMENTS:
        inside = slice(segment.start, segment.end)
        alone = model(
            torch.from_numpy(row.tokens)[None, inside],
            torch.from_numpy(row.positions)[None, inside],
            [[segment._replace(start=0)]],
        )
        torch.testing.assert_close(packed[inside], alone[0])


@pytest.mark.parametrize(
    ("changed", "first_affected", "end_affected"), [(1, 0, 5), (4, 4, 5), (9, 9, 11), (11, 11, 12)]
)
def test_a_token_reaches_whom_it_should(changed: int, first_affected: int, end_affected: int) -> None:
    """A context token its whole segment, a target itself and later targets, padding itself."""
    model, row = tiny_model(), random_row(0)
    tokens = row.tokens.copy()
    tokens[changed] = (tokens[changed] + 1) % VOCABULARY
    moved = (logits_of(model, row) - logits_of(model, replace(row, tokens=tokens))).abs().amax(dim=-1) > 1e-9
    assert moved.tolist() == [first_affected <= position < end_affected for position in range(LENGTH)]


def test_row_losses_by_hand() -> None:
    logits_BSV = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0], [5.0, 1.0]]])
    losses = row_losses(logits_BSV, torch.tensor([[0, 1, 0]]), torch.tensor([[0.5, 0.5, 0.0]]))
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx([0.5 * math.log(4) + 0.5 * math.log(2)])


def test_row_losses_of_half_precision_logits_are_fp32() -> None:
    logits_BSV = torch.tensor([[[0.0, math.log(3.0)]]], dtype=torch.float16)
    assert row_losses(logits_BSV, torch.tensor([[0]]), torch.ones(1, 1)).dtype == torch.float32


def test_batch_loss_is_mean_over_rows_of_mean_over_loss_tokens() -> None:
    """Rows with different numbers of loss tokens weigh the same."""
    model, short = tiny_model(), random_row(1)
    short = replace(short, loss_mask=short.loss_mask & (np.arange(LENGTH) == 4))
    rows = [random_row(0), short]
    by_hand = []
    for row in rows:
        log_probabilities = logits_of(model, row).log_softmax(dim=-1)
        token_losses = [-log_probabilities[s, row.targets[s]].item() for s in np.flatnonzero(row.loss_mask)]
        by_hand.append(sum(token_losses) / len(token_losses))
    assert backward(model, Step(rows=rows, learning_rate=0.0)) == pytest.approx(sum(by_hand) / 2, rel=1e-9)


def test_gradient_matches_finite_differences() -> None:
    """Along a random direction per parameter, in fp64."""
    step, model = step_of(2), tiny_model()
    backward(model, step)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        losses = []
        with torch.no_grad():
            for offset in (1e-5, -2e-5, 1e-5):
                parameter.add_(offset * direction)
                losses.append(rows_loss(model, step.rows, step).mean().item())
        assert parameter.grad is not None
        slope = (losses[0] - losses[1]) / 2e-5
        assert (parameter.grad * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-8), name


def test_embedding_gradient_shrink() -> None:
    """Each side's share of the tied gradient is scaled by its own alpha; nothing else changes."""
    step = step_of(2)
    full = gradients(step)
    input_share = gradients(replace(step, logit_alpha=0.0))["embedding.weight"]
    logit_share = gradients(replace(step, input_alpha=0.0))["embedding.weight"]
    assert input_share.norm() > 1e-3
    assert logit_share.norm() > 1e-3
    torch.testing.assert_close(full["embedding.weight"], input_share + logit_share)

    shrunk = gradients(replace(step, input_alpha=0.1, logit_alpha=0.7))
    torch.testing.assert_close(shrunk.pop("embedding.weight"), 0.1 * input_share + 0.7 * logit_share)
    assert all(torch.equal(gradient, full[name]) for name, gradient in shrunk.items())


def test_embedding_gradient_shrink_leaves_logits_alone() -> None:
    model, row = tiny_model(torch.float32), random_row(0)
    arguments = (torch.from_numpy(row.tokens)[None], torch.from_numpy(row.positions)[None], [row.segments])
    assert torch.equal(model(*arguments), model(*arguments, input_alpha=0.1, logit_alpha=0.3))


def test_micro_batches_change_rounding_only() -> None:
    step = step_of(5)
    whole, pieces = gradients(step), gradients(step, micro_size=2)
    for name, gradient in whole.items():
        torch.testing.assert_close(pieces[name], gradient)


@pytest.mark.parametrize(("maximum", "expected"), [(10.0, [3.0, 4.0]), (1.0, [0.6, 0.8])])
def test_clipping_by_hand(maximum: float, expected: list[float]) -> None:
    """Gradients 3 and 4 have norm 5; a parameter without gradient counts for nothing."""
    parameters = [nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(3)]
    for parameter, gradient in zip(parameters, (3.0, 4.0), strict=False):
        parameter.grad = torch.full((1,), gradient, dtype=torch.float64)
    assert clip_gradients(parameters, maximum) == pytest.approx(5.0)
    assert [p.grad.item() for p in parameters if p.grad is not None] == pytest.approx(expected, rel=1e-6)


def one_step(optimizer: str, clip: float) -> tuple[StepResult, Callable[[str], tuple[Tensor, Tensor, Tensor]]]:
    """The result of one step and, by name, a parameter's value before, its unclipped gradient and its value after."""
    step, model = step_of(2), tiny_model()
    before, unclipped = tiny_model().state_dict(), gradients(step)
    assert optimizer in ("adamw", "sgd")
    (result,) = train(
        model,
        [step],
        optimizer="adamw" if optimizer == "adamw" else "sgd",
        clip_gradient_norm=clip,
        weight_decay=0.25 if optimizer == "adamw" else 0.0,
    )
    after = model.state_dict()
    return result, lambda name: (before[name], unclipped[name], after[name])


def test_sgd_step_by_hand() -> None:
    """The norm counts the tied embedding once and is the one before clipping; the step uses the clipped gradient."""
    result, parameter = one_step("sgd", clip=0.5)
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients(step_of(2)).values()))
    assert norm > 0.5
    assert result.gradient_norm == pytest.approx(norm, rel=1e-12)
    for name in ("embedding.weight", "decoder.layers.1.mlp.linear_fc1.bias"):
        before, gradient, after = parameter(name)
        torch.testing.assert_close(after, before - 0.1 * gradient * 0.5 / (norm + 1e-6), rtol=1e-10, atol=0)


def test_first_adamw_step_by_hand() -> None:
    """Bias correction makes the first step ``g / (|g| + eps)``; decay touches matrices and the embedding only."""
    result, parameter = one_step("adamw", clip=1e9)
    assert result.loss == pytest.approx(backward(tiny_model(), step_of(2)), rel=1e-12)
    decays = {
        "embedding.weight": 0.25,
        "decoder.layers.0.self_attention.linear_qkv.weight": 0.25,
        "decoder.layers.0.self_attention.linear_qkv.bias": 0.0,
        "decoder.final_layernorm.weight": 0.0,
    }
    for name, decay in decays.items():
        before, gradient, after = parameter(name)
        expected = before * (1 - 0.1 * decay) - 0.1 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(after, expected, rtol=1e-9, atol=1e-12)


def test_second_step_uses_its_own_rate_and_weights() -> None:
    model = tiny_model()
    steps = [replace(step_of(2), learning_rate=rate) for rate in (0.0, 0.05, 0.05)]
    results = train(model, steps, optimizer="sgd", clip_gradient_norm=1.0)
    assert results[1] == results[0]  # a rate of 0 moved nothing
    assert results[2].loss < results[1].loss


# The public model's vectors


@pytest.fixture(scope="module")
def released_model() -> ReferenceGLM:
    checkpoint = REFERENCE / "released_layout_tp1" / "49300" / "mp_rank_00_model_states.pt"
    if not checkpoint.is_file():
        pytest.skip("the public model's vectors (../shared/reference) are not on this machine")
    model = ReferenceGLM(
        num_layers=4, hidden_size=64, num_attention_heads=4, ffn_hidden_size=176, vocab_size=384, rotary_base=10000.0
    )
    model.load_state_dict(from_released_layout(torch.load(checkpoint, weights_only=True)["module"]))
    return model.requires_grad_(False)


def run_case(model: ReferenceGLM) -> tuple[Tensor, dict[str, NDArray[np.generic]]]:
    case = dict(np.load(REFERENCE / "case_a_gmask.npz"))
    context_length, length = int(case["division"][0]), case["input_ids"].shape[1]
    segments = [[Segment(0, context_length, length - context_length)]]
    assert np.array_equal(~visibility(segments, length).numpy(), case["attention_mask"][:, 0])
    return model(torch.from_numpy(case["input_ids"]), torch.from_numpy(case["position_ids"]), segments), case


def test_logits_and_loss_of_the_public_model(released_model: ReferenceGLM) -> None:
    logits, case = run_case(released_model)
    assert np.abs(logits.numpy() - case["logits"]).max() <= 1e-5
    loss_mask = torch.from_numpy(case["loss_mask"]).float()
    loss = row_losses(logits, torch.from_numpy(case["targets"]), loss_mask / loss_mask.sum())
    assert loss.item() == pytest.approx(float(case["loss"]), abs=1e-5)


def test_states_of_the_public_model(released_model: ReferenceGLM) -> None:
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _module, _arguments, output: outputs.__setitem__(name, output)

    handles = [released_model.decoder.final_layernorm.register_forward_hook(record("final_layernorm"))]
    for i, layer in enumerate(released_model.decoder.layers):
        recorded = {
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

    outputs["embedding"] = released_model.embedding.weight[torch.from_numpy(case["input_ids"])]
    positions = torch.from_numpy(case["position_ids"])
    for i, layer in enumerate(released_model.decoder.layers):
        _, key, value = layer.self_attention.query_key_value(outputs[f"layer{i}.qkv"], positions)
        outputs |= {f"layer{i}.key_after_rope": key, f"layer{i}.value": value}

    states = dict(np.load(REFERENCE / "case_a_gmask_states.npz"))
    assert outputs.keys() == states.keys()
    for name, state in states.items():
        assert np.abs(outputs[name].numpy() - state).max() <= 1e-5, name
