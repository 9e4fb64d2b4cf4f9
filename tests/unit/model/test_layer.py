"""Each placement of the norms against its formula, with and without dropout; alpha; what a placement consists of."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.layer import Layer, deepnorm_alpha
from glm130b.model.rotary import rotary_table
from glm130b.model.segments import PackedSegments
from tests.harness.pool import run_distributed
from tests.harness.stage import initial_chunk, scatter_parameters_
from tests.harness.synthetic import small_config

PLACEMENTS: dict[str, dict[str, Any]] = {
    "deepnorm": {},
    "pre": {"norm_placement": "pre"},
    "parallel": {"norm_placement": "pre", "parallel_block": True},
    "post": {"norm_placement": "post"},
    "sandwich": {"norm_placement": "sandwich"},
}
NORMS = {
    "deepnorm": ["input_layernorm", "pre_mlp_layernorm"],
    "pre": ["input_layernorm", "pre_mlp_layernorm"],
    "parallel": ["input_layernorm"],
    "post": ["post_attention_layernorm", "post_mlp_layernorm"],
    "sandwich": ["input_layernorm", "post_attention_layernorm", "post_mlp_layernorm", "pre_mlp_layernorm"],
}


class Parts:
    """A layer's sublayers and norms in fp64, for tokens that see themselves only: attention is then its own value."""

    def __init__(self, layer: Layer, heads: int, dropout: float) -> None:
        self._weights = {name: parameter.double() for name, parameter in layer.named_parameters()}
        self._heads = heads
        self._dropout = dropout

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], eps=1e-5)

    def attention(self, x: Tensor) -> Tensor:
        value = self._affine("self_attention.linear_qkv", x).unflatten(-1, (self._heads, 3, -1))[..., 2, :]
        return self._affine("self_attention.linear_proj", value.flatten(-2))

    def ffn(self, x: Tensor) -> Tensor:
        gated, straight = self._affine("mlp.linear_fc1", x).chunk(2, dim=-1)
        return self._affine("mlp.linear_fc2", F.gelu(gated) * straight)

    def drop(self, x: Tensor) -> Tensor:
        """Dropout by the masks that an fp32 tensor of this shape would get."""
        return x * F.dropout(torch.ones_like(x, dtype=torch.float32), self._dropout)

    def _affine(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])


def deepnorm(part: Parts, x: Tensor, alpha: float) -> Tensor:
    h = part.norm("input_layernorm", x)
    y = alpha * h + part.drop(part.attention(h))
    g = part.norm("pre_mlp_layernorm", y)
    return alpha * g + part.drop(part.ffn(g))


def pre(part: Parts, x: Tensor, alpha: float) -> Tensor:
    y = x + part.drop(part.attention(part.norm("input_layernorm", x)))
    return y + part.drop(part.ffn(part.norm("pre_mlp_layernorm", y)))


def parallel(part: Parts, x: Tensor, alpha: float) -> Tensor:
    h = part.norm("input_layernorm", x)
    return x + part.drop(part.attention(h)) + part.drop(part.ffn(h))


def post(part: Parts, x: Tensor, alpha: float) -> Tensor:
    y = part.norm("post_attention_layernorm", x + part.drop(part.attention(x)))
    return part.norm("post_mlp_layernorm", y + part.drop(part.ffn(y)))


def sandwich(part: Parts, x: Tensor, alpha: float) -> Tensor:
    attended = part.attention(part.norm("input_layernorm", x))
    y = x + part.drop(part.norm("post_attention_layernorm", attended))
    return y + part.drop(part.norm("post_mlp_layernorm", part.ffn(part.norm("pre_mlp_layernorm", y))))


FORMULAS: dict[str, Callable[[Parts, Tensor, float], Tensor]] = {
    "deepnorm": deepnorm,
    "pre": pre,
    "parallel": parallel,
    "post": post,
    "sandwich": sandwich,
}
"""The docstring of ``layer.py`` in plain PyTorch, dropout where each sublayer's contribution joins the residual."""


def tiny_config(**model: Any) -> RunConfig:
    return small_config(model={"hidden_size": 8, "num_attention_heads": 2, "ffn_hidden_size": 6, **model})


def through(layer: Layer, x_SBH: Tensor) -> Tensor:
    """The layer on one row of tokens that see themselves only."""
    positions_BAS = torch.arange(len(x_SBH)).view(1, 1, -1)
    width = layer.config.kv_channels
    table = rotary_table(positions_BAS, head_dim=width, base=1e4, table_dtype=torch.float32, dtype=torch.float32)
    segments = PackedSegments([[(token, token % 2, 1 - token % 2) for token in range(len(x_SBH))]], rotary=table)
    out_SBH, _ = layer(x_SBH, packed_seq_params=segments)
    return out_SBH


def layer_and_formulas(launch: Launch, config: RunConfig) -> dict[str, Tensor]:
    """The last layer's output, and what every formula whose norms it has makes of the same weights and masks."""
    with initial_chunk(launch, config) as chunk, torch.no_grad():
        scatter_parameters_(chunk)
        layer = chunk.decoder.layers[-1]
        part = Parts(layer, config.model.num_attention_heads, config.model.hidden_dropout)
        x_SBH = torch.randn(6, 1, config.model.hidden_size, generator=torch.Generator().manual_seed(3))
        names = {name.partition(".")[0] for name, _ in layer.named_parameters() if "norm" in name}
        outputs = {}
        for name, formula in FORMULAS.items():
            if names.issuperset(NORMS[name]):
                torch.manual_seed(7)
                outputs[name] = formula(part, x_SBH.double(), (2 * config.model.num_layers) ** 0.5)
        torch.manual_seed(7)
        return {"ours": through(layer, x_SBH).double(), **outputs}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_layer_is_its_formula(placement: str, dropout: float) -> None:
    config = tiny_config(num_layers=3, hidden_dropout=dropout, **PLACEMENTS[placement])
    (outputs,) = run_distributed(layer_and_formulas, 1, config)
    ours, expected = outputs.pop("ours"), outputs.pop(placement)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=2e-5)
    # The placements that it might be confused with lie far away.
    assert placement in ("parallel", "post") or outputs
    assert all((ours - other).abs().max() > 0.5 for other in outputs.values())


def parameter_names(launch: Launch, config: RunConfig) -> list[str]:
    with initial_chunk(launch, config) as chunk:
        assert {layer.layer_number for layer in chunk.decoder.layers} == {1, 2, 3, 4}
        return [name for name, _ in chunk.decoder.layers[1].named_parameters()]


@pytest.mark.parametrize("sections", [{}, {"biases": False}, {"normalization": "rmsnorm"}], ids=str)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_placement_has_its_norms_and_no_others(placement: str, sections: dict[str, Any]) -> None:
    (names,) = run_distributed(parameter_names, 1, tiny_config(**PLACEMENTS[placement], **sections))
    affine = ["weight", "bias"] if sections.get("biases", True) else ["weight"]
    norm = ["weight"] if "normalization" in sections else affine
    linear = ["self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2"]
    expected = {f"{name}.{part}" for name in linear for part in affine}
    assert set(names) == expected | {f"{name}.{part}" for name in NORMS[placement] for part in norm}
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("num_layers", "alpha"), [(2, 2.0), (8, 4.0), (70, 11.832159566)])
def test_alpha(num_layers: int, alpha: float) -> None:
    """The factor of the run: sqrt(2 N), not DeepNorm's own (2 N) ** 0.25 for decoders."""
    assert deepnorm_alpha(num_layers) == pytest.approx(alpha)


def alpha_on_a_stage(launch: Launch, config: RunConfig) -> tuple[int, float]:
    """Layers here, and the factor a layer gives its residual when attention and FFN say nothing."""
    with initial_chunk(launch, config) as chunk, torch.no_grad():
        layer = chunk.decoder.layers[0]
        for name, parameter in layer.named_parameters():
            if "linear" in name:
                parameter.zero_()
        x_SBH = torch.tensor([1.0, -1.0]).repeat(config.model.hidden_size // 2).view(1, 1, -1)
        return len(chunk.decoder.layers), (through(layer, x_SBH) / x_SBH).mean().item()


def test_alpha_counts_the_layers_of_the_whole_model() -> None:
    """On a stage with two of four layers alpha is sqrt(8)."""
    for layers, alpha in run_distributed(alpha_on_a_stage, 2, small_config(parallel={"pipeline": 2})):
        assert layers == 2
        assert alpha == pytest.approx(8**0.5, rel=1e-4)


def four_passes(launch: Launch, config: RunConfig) -> list[Tensor]:
    """A layer's output twice in training and twice in evaluation."""
    with initial_chunk(launch, config) as chunk, torch.no_grad():
        x_SBH = torch.randn(2, 1, config.model.hidden_size, generator=torch.Generator().manual_seed(3))
        return [through(chunk.train(training).decoder.layers[0], x_SBH) for training in (True, True, False, False)]


def test_hidden_dropout_is_for_training_only() -> None:
    (outputs,) = run_distributed(four_passes, 1, small_config(model={"hidden_dropout": 0.5}))
    assert not torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[2], outputs[3])
