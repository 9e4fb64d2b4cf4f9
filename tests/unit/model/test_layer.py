"""alpha, beta, and the layer's equation by hand."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from glm130b.config.sections import RunConfig
from glm130b.launcher import Launch
from glm130b.model.attention import PackedSegments
from glm130b.model.deepnorm import deepnorm_alpha, deepnorm_beta
from glm130b.model.rotary import rotary_angles
from tests.harness.pool import run_distributed
from tests.harness.stage import scatter_parameters_, stage
from tests.harness.synthetic import small_config


@pytest.mark.parametrize(("num_layers", "alpha"), [(2, 2.0), (8, 4.0), (70, 11.832159566)])
def test_alpha_and_beta(num_layers: int, alpha: float) -> None:
    """The factors of an encoder-free decoder in the run: sqrt(2 N) and its inverse, not DeepNorm's (2 N) ** 0.25."""
    assert deepnorm_alpha(num_layers) == pytest.approx(alpha)
    assert deepnorm_beta(num_layers) == pytest.approx(1 / alpha)


def layer_by_hand(launch: Launch, config: RunConfig) -> dict[str, Tensor]:
    """One token that sees itself only: attention is then its own value, so the layer fits on ten lines."""
    with stage(launch, config) as model, torch.no_grad():
        scatter_parameters_(model)
        layer = model.decoder.layers[-1]
        weights = dict(layer.named_parameters())
        x_SBH = torch.randn(3, 1, config.model.hidden_size, generator=torch.Generator().manual_seed(3))
        ours, _ = layer(
            x_SBH,
            rotary_pos_emb=rotary_angles(torch.tensor([[0, 1, 2]]), head_dim=layer.config.kv_channels, base=1e4),
            packed_seq_params=PackedSegments([[(0, 1, 0), (1, 0, 1), (2, 1, 0)]]),
        )

        def norm(name: str, x: Tensor) -> Tensor:
            return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-5)

        def affine(name: str, x: Tensor) -> Tensor:
            return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

        alpha, heads = (2 * config.model.num_layers) ** 0.5, config.model.num_attention_heads
        h = norm("input_layernorm", x_SBH)
        value = affine("self_attention.linear_qkv", h).unflatten(-1, (heads, 3, -1))[..., 2, :].flatten(-2)
        y = alpha * h + affine("self_attention.linear_proj", value)
        g = norm("pre_mlp_layernorm", y)
        gated, straight = affine("mlp.linear_fc1", g).chunk(2, dim=-1)
        by_hand = alpha * g + affine("mlp.linear_fc2", gelu(gated) * straight)
        post_norm = norm("pre_mlp_layernorm", by_hand)
        return {
            "ours": ours,
            "by hand": by_hand,
            "normalised": post_norm,
            "residual of x": by_hand - alpha * h + alpha * x_SBH,
        }


@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_layer_is_its_equation(num_layers: int) -> None:
    config = small_config(
        model={"num_layers": num_layers, "hidden_size": 8, "num_attention_heads": 2, "ffn_hidden_size": 6}
    )
    (out,) = run_distributed(layer_by_hand, 1, config)
    torch.testing.assert_close(out["ours"], out["by hand"], atol=1e-5, rtol=1e-5)
    # The neighbours that it might be confused with lie far away.
    assert (out["ours"] - out["normalised"]).abs().max() > 0.5
    assert (out["ours"] - out["residual of x"]).abs().max() > 0.5


def alpha_on_a_stage(launch: Launch, config: RunConfig) -> tuple[int, float]:
    """Layers here, and the factor a layer gives its residual when attention and FFN say nothing."""
    with stage(launch, config) as model, torch.no_grad():
        layer = model.decoder.layers[0]
        for name, parameter in layer.named_parameters():
            if "linear" in name:
                parameter.zero_()
        x_SBH = torch.tensor([1.0, -1.0]).repeat(config.model.hidden_size // 2).view(1, 1, -1)
        out, _ = layer(
            x_SBH,
            rotary_pos_emb=rotary_angles(torch.zeros(1, 1), head_dim=layer.config.kv_channels, base=1e4),
            packed_seq_params=PackedSegments([[(0, 1, 0)]]),
        )
        return len(model.decoder.layers), (out / x_SBH).mean().item()


def test_alpha_counts_the_layers_of_the_whole_model() -> None:
    """On a stage with two of four layers alpha is sqrt(8)."""
    for layers, alpha in run_distributed(alpha_on_a_stage, 2, small_config(parallel={"pipeline": 2})):
        assert layers == 2
        assert alpha == pytest.approx(8**0.5, rel=1e-4)


def hidden_dropout(launch: Launch, config: RunConfig) -> list[Tensor]:
    """A layer's output twice in training and twice in evaluation."""
    with stage(launch, config) as model, torch.no_grad():
        x_SBH = torch.randn(2, 1, config.model.hidden_size, generator=torch.Generator().manual_seed(3))
        angles = rotary_angles(torch.tensor([[0, 1]]), head_dim=model.config.kv_channels, base=1e4)
        return [
            model.train(training).decoder.layers[0](
                x_SBH, rotary_pos_emb=angles, packed_seq_params=PackedSegments([[(0, 1, 1)]])
            )[0]
            for training in (True, True, False, False)
        ]


def test_hidden_dropout_is_for_training_only() -> None:
    (outputs,) = run_distributed(hidden_dropout, 1, small_config(model={"hidden_dropout": 0.5}))
    assert not torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[2], outputs[3])
