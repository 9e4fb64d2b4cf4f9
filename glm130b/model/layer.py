"""One transformer layer, in the placements of its norms that GLM-130B chose from (paper, section 2.1 and figure 3).

x goes in, out comes out, every LN has weights of its own, a = sqrt(2 N):

    deepnorm   h = LN1(x);  y = a h + Attention(h);  g = LN2(y);  out = a g + FFN(g)
    pre        y = x + Attention(LN1(x));            out = y + FFN(LN2(y))
    parallel   h = LN1(x);                           out = x + Attention(h) + FFN(h)
    post       y = LN3(x + Attention(x));            out = LN4(y + FFN(y))
    sandwich   y = x + LN3(Attention(LN1(x)));       out = y + LN4(FFN(LN2(y)))

DeepNorm's residual is the LayerNorm's own output (GLM-130B paper, section 2.1; DeepNorm, Wang et al. 2022), so what a
layer hands on is not normalised: the next layer's LN1, or the final norm, does that. Only ``post`` needs no final norm.
"""

from collections.abc import Callable
from typing import Any

from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from megatron.core.utils import make_viewless_tensor
from torch import Tensor, nn

from glm130b.config.model import ModelConfig
from glm130b.model.attention import PrefixAttention
from glm130b.model.ffn import FFN, FusedFFN
from glm130b.model.kernels import Kernels
from glm130b.model.segments import PackedSegments

WithBias = tuple[Tensor, Tensor | None]
"""A sublayer's output [S, B, H] and its bias [H], which is added together with dropout and residual."""


def deepnorm_alpha(num_layers: int) -> float:
    """Weight of the residual in every layer, (2 N) ** 0.5."""
    return (2 * num_layers) ** 0.5


class Layer(TransformerLayer):
    """Hidden states [S, B, H] in and out; the subclasses are the placements."""

    norms: tuple[str, ...]
    """The placement's norms, by the names of their parameters."""

    def __init__(
        self,
        config: TransformerConfig,
        submodules: TransformerLayerSubmodules,
        *,
        build_norm: Callable[[], nn.Module],
        ffn: type[FFN],
        **rest: Any,
    ) -> None:
        super().__init__(config=config, submodules=submodules, **rest)
        self.mlp = ffn(config, tp_group=self.tp_group)
        for name in self.norms:
            setattr(self, name, build_norm())

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: None = None,
        context: None = None,
        context_mask: None = None,
        packed_seq_params: PackedSegments | None = None,
        **unused: Any,
    ) -> tuple[Tensor, None]:
        """The names of the arguments are those that ``TransformerBlock`` passes."""
        assert packed_seq_params is not None
        out_SBH = self.through(hidden_states, packed_seq_params)
        # The pipeline frees a sent tensor's storage, which it may only do when nothing else views it.
        return make_viewless_tensor(out_SBH, requires_grad=out_SBH.requires_grad, keep_graph=True), None

    def through(self, x_SBH: Tensor, segments: PackedSegments) -> Tensor:
        """The layer's formula."""
        raise NotImplementedError

    def attend(self, x_SBH: Tensor, segments: PackedSegments) -> WithBias:
        return self.self_attention(x_SBH, attention_mask=None, packed_seq_params=segments)

    def add(self, sublayer: WithBias, residual_SBH: Tensor) -> Tensor:
        """Residual plus the sublayer's output, its bias added and dropout applied first."""
        bias_dropout_add = get_bias_dropout_add(self.training, self.config.bias_dropout_fusion)
        return bias_dropout_add(sublayer, residual_SBH, self.hidden_dropout)


class DeepNormLayer(Layer):
    norms = ("input_layernorm", "pre_mlp_layernorm")

    def through(self, x_SBH: Tensor, segments: PackedSegments) -> Tensor:
        alpha = deepnorm_alpha(self.config.num_layers)
        h_SBH = self.input_layernorm(x_SBH)
        y_SBH = self.add(self.attend(h_SBH, segments), alpha * h_SBH)
        g_SBH = self.pre_mlp_layernorm(y_SBH)
        return self.add(self.mlp(g_SBH), alpha * g_SBH)


class PreNormLayer(Layer):
    norms = ("input_layernorm", "pre_mlp_layernorm")

    def through(self, x_SBH: Tensor, segments: PackedSegments) -> Tensor:
        y_SBH = self.add(self.attend(self.input_layernorm(x_SBH), segments), x_SBH)
        return self.add(self.mlp(self.pre_mlp_layernorm(y_SBH)), y_SBH)


class ParallelLayer(Layer):
    norms = ("input_layernorm",)

    def through(self, x_SBH: Tensor, segments: PackedSegments) -> Tensor:
        h_SBH = self.input_layernorm(x_SBH)
        return self.add(self.mlp(h_SBH), self.add(self.attend(h_SBH, segments), x_SBH))


class PostNormLayer(Layer):
    norms = ("post_attention_layernorm", "post_mlp_layernorm")

    def through(self, x_SBH: Tensor, segments: PackedSegments) -> Tensor:
        y_SBH = self.post_attention_layernorm(self.add(self.attend(x_SBH, segments), x_SBH))
        return self.post_mlp_layernorm(self.add(self.mlp(y_SBH), y_SBH))


class SandwichLayer(Layer):
    norms = ("input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm")

    def through(self, x_SBH: Tensor, segments: PackedSegments) -> Tensor:
        attended = _with_bias(self.attend(self.input_layernorm(x_SBH), segments))
        y_SBH = self.add((self.post_attention_layernorm(attended), None), x_SBH)
        fed = _with_bias(self.mlp(self.pre_mlp_layernorm(y_SBH)))
        return self.add((self.post_mlp_layernorm(fed), None), y_SBH)


def _with_bias(sublayer: WithBias) -> Tensor:
    out_SBH, bias_H = sublayer
    return out_SBH if bias_H is None else out_SBH + bias_H


_PLACEMENTS: dict[str, type[Layer]] = {
    "deepnorm": DeepNormLayer,
    "pre": PreNormLayer,
    "post": PostNormLayer,
    "sandwich": SandwichLayer,
}


def layer_spec(model: ModelConfig, kernels: Kernels, build_norm: Callable[[], nn.Module]) -> ModuleSpec:
    """Megatron-core's recipe for one layer: which part stands where. ``build_norm`` makes one norm."""
    core_attention = ModuleSpec(
        module=PrefixAttention,
        params={"kernel": kernels.attention, "has_alibi": model.positions == "alibi"},
    )
    return ModuleSpec(
        module=ParallelLayer if model.parallel_block else _PLACEMENTS[model.norm_placement],
        params={"build_norm": build_norm, "ffn": FusedFFN if kernels.fused_pointwise else FFN},
        submodules=TransformerLayerSubmodules(
            self_attention=ModuleSpec(
                module=SelfAttention,
                params={"attn_mask_type": AttnMaskType.arbitrary},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=ColumnParallelLinear, core_attention=core_attention, linear_proj=RowParallelLinear
                ),
            ),
        ),
    )
