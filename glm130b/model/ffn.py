"""The FFN, plain by Megatron-core or with bias and gate in one kernel."""

from typing import Any

import torch.nn.functional as F
from megatron.core.fusions.fused_bias_swiglu import bias_swiglu_impl
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from glm130b.model.geglu import bias_geglu


class FFN(MLP):
    """Hidden states [S, B, H] to the output [S, B, H] and its bias [H] or None, which the layer adds."""

    def __init__(self, config: TransformerConfig, **rest: Any) -> None:
        rest.setdefault("submodules", MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear))
        super().__init__(config, ffn_hidden_size=config.ffn_hidden_size, **rest)


class FusedFFN(FFN):
    """The same function. A plain GELU stays as it is: what Megatron-core has to fuse it is the tanh approximation."""

    def forward(
        self, hidden_states: Tensor, per_token_scale: None = None, **unused: Any
    ) -> tuple[Tensor, Tensor | None]:
        if not self.config.gated_linear_unit:
            return super().forward(hidden_states)
        x_SBF, bias_F = self.linear_fc1(hidden_states)
        gate = bias_swiglu_impl if self.config.activation_func is F.silu else bias_geglu
        return self.linear_fc2(gate(x_SBF, bias_F))
