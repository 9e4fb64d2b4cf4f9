"""GLM's attention: the context sees itself fully, targets see the context and what was written before.

That is two stock attention calls per segment instead of a mask: full attention over the context, and
bottom-right-causal attention of the targets over everything in the segment. No s x s mask exists anywhere.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right


@dataclass(frozen=True)
class PackedSegments:
    """Who attends to whom in a micro-batch: ``rows[b]`` lists (start, context_length, target_length) in tokens.

    Tokens outside every segment are padding. Megatron-core hands this object through its ``packed_seq_params`` slot,
    the one that survives activation recomputation; the last two fields are what its attention reads there.
    """

    rows: Sequence[Sequence[tuple[int, int, int]]]
    qkv_format: str = "sbhd"
    cp_group: None = None


class PrefixAttention(nn.Module):
    """Megatron-core's ``core_attention`` for GLM. Heads are already split over tensor-parallel ranks."""

    def __init__(self, config: TransformerConfig, softmax_scale: float | None = None, **unused: Any) -> None:
        super().__init__()
        self.scale = softmax_scale or config.kv_channels**-0.5
        self.dropout = config.attention_dropout

    def forward(
        self,
        query_SBND: Tensor,
        key_SBND: Tensor,
        value_SBND: Tensor,
        attention_mask: None = None,
        packed_seq_params: PackedSegments | None = None,
        **unused: Any,
    ) -> Tensor:
        """Mixed values [S, B, N * D] for queries, keys and values [S, B, N, D]; padding gives zeros."""
        assert packed_seq_params is not None
        dropout = self.dropout if self.training else 0.0
        # Each tensor-parallel rank holds other heads, so each must draw other dropout masks.
        with get_cuda_rng_tracker().fork() if dropout else nullcontext():
            mixed_BSH = [
                _attend_row(query_SBND[:, b], key_SBND[:, b], value_SBND[:, b], segments, self.scale, dropout)
                for b, segments in enumerate(packed_seq_params.rows)
            ]
        return torch.stack(mixed_BSH, dim=1)


def _attend_row(
    query_SND: Tensor,
    key_SND: Tensor,
    value_SND: Tensor,
    segments: Sequence[tuple[int, int, int]],
    scale: float,
    dropout: float,
) -> Tensor:
    """One row: mixed values [S, N * D]."""
    query, key, value = (x.transpose(0, 1)[None] for x in (query_SND, key_SND, value_SND))
    pieces, done = [], 0
    for start, context, target in segments:
        split, end = start + context, start + context + target
        pieces.append(torch.zeros_like(query[:, :, done:start]))
        if context:
            inside = slice(start, split)
            pieces.append(
                F.scaled_dot_product_attention(
                    query[:, :, inside], key[:, :, inside], value[:, :, inside], scale=scale, dropout_p=dropout
                )
            )
        if target:
            pieces.append(
                F.scaled_dot_product_attention(
                    query[:, :, split:end],
                    key[:, :, start:end],
                    value[:, :, start:end],
                    # `is_causal=True` would align the triangle top-left, which is wrong, silently, when there is a
                    # context.
                    attn_mask=causal_lower_right(target, context + target),
                    scale=scale,
                    dropout_p=dropout,
                )
            )
        done = end
    pieces.append(torch.zeros_like(query[:, :, done:]))
    return torch.cat(pieces, dim=2)[0].transpose(0, 1).flatten(1)
