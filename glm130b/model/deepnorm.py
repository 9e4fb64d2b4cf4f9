"""The GLM-130B layer: DeepNorm as the run had it, around Megatron-core's attention and FFN.

    h = LN1(x);  y = a h + Attention(h);  g = LN2(y);  out = a g + FFN(g);  a = sqrt(2 N)

The residual is the LayerNorm's own output (GLM-130B paper, section 2.1; DeepNorm, Wang et al. 2022), so what a layer
hands on is not normalised: the next layer's LN1, or the final LayerNorm, does that.
"""

from typing import Any

from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.torch_norm import WrappedTorchNorm
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from megatron.core.utils import make_viewless_tensor
from torch import Tensor

from glm130b.model.attention import PackedSegments, PrefixAttention


def deepnorm_alpha(num_layers: int) -> float:
    """Weight of the residual in every layer, (2 N) ** 0.5."""
    return (2 * num_layers) ** 0.5


def deepnorm_beta(num_layers: int) -> float:
    """Initial gain of value, output and FFN matrices, (2 N) ** -0.5."""
    return (2 * num_layers) ** -0.5


class DeepNormLayer(TransformerLayer):
    """One layer. Hidden states [S, B, H] in and out."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: None = None,
        context: None = None,
        context_mask: None = None,
        rotary_pos_emb: Tensor | None = None,
        packed_seq_params: PackedSegments | None = None,
        **unused: Any,
    ) -> tuple[Tensor, None]:
        """The names of the arguments are those that ``TransformerBlock`` passes."""
        add_with_bias_and_dropout = get_bias_dropout_add(self.training, self.config.bias_dropout_fusion)
        alpha = deepnorm_alpha(self.config.num_layers)

        normed = self.input_layernorm(hidden_states)
        attended = self.self_attention(
            normed, attention_mask=None, rotary_pos_emb=rotary_pos_emb, packed_seq_params=packed_seq_params
        )
        hidden_states = add_with_bias_and_dropout(attended, alpha * normed, self.hidden_dropout)

        normed = self.pre_mlp_layernorm(hidden_states)
        hidden_states = add_with_bias_and_dropout(self.mlp(normed), alpha * normed, self.hidden_dropout)
        # The pipeline frees a sent tensor's storage, which it may only do when nothing else views it.
        return make_viewless_tensor(hidden_states, requires_grad=hidden_states.requires_grad, keep_graph=True), None


LAYER_NORM = WrappedTorchNorm
"""The model's one LayerNorm; left to itself Megatron-core takes another for the last one, by what is installed."""


def deepnorm_layer_spec() -> ModuleSpec:
    """Megatron-core's recipe for one layer: which part stands where."""
    attention = ModuleSpec(
        module=SelfAttention,
        params={"attn_mask_type": AttnMaskType.arbitrary},
        submodules=SelfAttentionSubmodules(
            linear_qkv=ColumnParallelLinear, core_attention=PrefixAttention, linear_proj=RowParallelLinear
        ),
    )
    ffn = ModuleSpec(
        module=MLP, submodules=MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
    )
    return ModuleSpec(
        module=DeepNormLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=LAYER_NORM,
            self_attention=attention,
            pre_mlp_layernorm=LAYER_NORM,
            mlp=ffn,
        ),
    )
