"""GLM's attention: the context sees itself fully, targets see the context and what was written before.

That is two stock attention calls per segment instead of a mask: full attention over the context, and
bottom-right-causal attention of the targets over everything in the segment. No s x s mask exists anywhere.
"""

from contextlib import nullcontext
from typing import Any

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from glm130b.model.alibi import alibi_slopes
from glm130b.model.kernels import AttentionKernel
from glm130b.model.segments import PackedSegments


class PrefixAttention(nn.Module):
    """Megatron-core's ``core_attention``: positions, then one of the attention kernels. Heads are already split over
    tensor-parallel ranks."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        kernel: AttentionKernel,
        has_alibi: bool,
        pg_collection: ProcessGroupCollection,
        softmax_scale: float | None = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.scale = softmax_scale or config.kv_channels**-0.5
        self.dropout = config.attention_dropout
        self.in_own_stream = config.sequence_parallel
        # No buffer: it must stay fp32 when the model is cast.
        self.slopes_N = _local_slopes(config.num_attention_heads, pg_collection) if has_alibi else None

    def forward(
        self,
        query_SBND: Tensor,
        key_SBGD: Tensor,
        value_SBGD: Tensor,
        attention_mask: None = None,
        packed_seq_params: PackedSegments | None = None,
        **unused: Any,
    ) -> Tensor:
        """Mixed values [S, B, N * D] for queries [S, B, N, D], keys and values [S, B, G, D]; padding gives zeros."""
        assert packed_seq_params is not None
        if (rotary := packed_seq_params.rotary) is not None:
            query_SBND, key_SBGD = rotary.rotate(query_SBND), rotary.rotate(key_SBGD)
        if self.slopes_N is not None:
            self.slopes_N = self.slopes_N.to(query_SBND.device)
        dropout = self.dropout if self.training else 0.0
        # Each tensor-parallel rank holds other heads, so each must draw other dropout masks. Under sequence parallelism
        # the whole decoder draws from the rank's own stream already; forked once more, recomputation would draw other
        # masks, silently.
        with get_cuda_rng_tracker().fork() if dropout and not self.in_own_stream else nullcontext():
            return self.kernel(
                query_SBND,
                key_SBGD,
                value_SBGD,
                packed_seq_params,
                scale=self.scale,
                dropout=dropout,
                slopes_N=self.slopes_N,
            )


def _local_slopes(num_heads: int, groups: ProcessGroupCollection) -> Tensor:
    with torch.device("cpu"):  # also where a model is built on the meta device
        return alibi_slopes(num_heads).chunk(groups.tp.size())[groups.tp.rank()].clone()
