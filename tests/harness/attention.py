"""For the tests of attention: shapes of rows, random inputs, the definition, and a variable-length kernel in plain
PyTorch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from tests.harness.reference_glm import visibility

Segments = list[tuple[int, int, int]]

S, N, D = 16, 4, 8
LAYOUTS: dict[str, Segments] = {
    "one segment": [(0, 6, 10)],
    "packed": [(0, 5, 3), (8, 2, 6)],
    "no context": [(0, 0, 16)],
    "no target": [(0, 16, 0)],
    "one-token targets": [(0, 7, 1), (8, 7, 1)],
    "one-token contexts": [(0, 1, 7), (8, 1, 7)],
    "padding before, between and after": [(1, 3, 2), (8, 2, 4)],
    "one token": [(3, 0, 1), (9, 1, 0)],
    "nothing but padding": [],
}


def random_qkv(num_rows: int, dtype: torch.dtype = torch.float32, key_value_heads: int = N) -> list[Tensor]:
    """Query [S, B, N, D], key and value [S, B, G, D]."""
    generator = torch.Generator().manual_seed(5)
    return [
        (2 * torch.randn(S, num_rows, heads, D, generator=generator)).to(dtype).requires_grad_()
        for heads in (N, key_value_heads, key_value_heads)
    ]


def dense(
    qkv_SBND: Sequence[Tensor], rows: Sequence[Segments], scale: float = D**-0.5, bias_BNSS: Tensor | None = None
) -> Tensor:
    """[S, B, N * D] by the definition, in the dtype of the inputs; padding is zero."""
    query, key, value = qkv_SBND
    key, value = (x.repeat_interleave(query.shape[2] // x.shape[2], dim=2) for x in (key, value))
    scores_BNSS = torch.einsum("qbnd,kbnd->bnqk", query, key) * scale
    if bias_BNSS is not None:
        scores_BNSS = scores_BNSS + bias_BNSS
    scores_BNSS = scores_BNSS.masked_fill(~visibility(rows, len(query))[:, None], float("-inf"))
    mixed_SBH = torch.einsum("bnqk,kbnd->qbnd", scores_BNSS.softmax(dim=-1), value).flatten(2)
    return mixed_SBH * inside(rows, len(query))[..., None].to(mixed_SBH.dtype)


def inside(rows: Sequence[Segments], sequence: int = S) -> Tensor:
    """bool [S, B]: the token belongs to a segment."""
    belongs_SB = torch.zeros(sequence, len(rows), dtype=torch.bool)
    for row, segments in enumerate(rows):
        for start, context, target in segments:
            belongs_SB[start : start + context + target, row] = True
    return belongs_SB


def plain_varlen_kernel(
    query_TND: Tensor,
    key_TGD: Tensor,
    value_TGD: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    max_query: int,
    max_key: int,
    /,
    *,
    causal: bool,
    scale: float,
    dropout: float,
) -> Tensor:
    """Sequence after sequence; checks that it is told the truth about them."""
    assert cu_query.dtype == cu_key.dtype == torch.int32
    own, seen = cu_query.diff().tolist(), cu_key.diff().tolist()
    assert (max_query, max_key, sum(own), sum(seen)) == (max(own), max(seen), len(query_TND), len(key_TGD))
    assert not dropout
    sharing = query_TND.shape[1] // key_TGD.shape[1]
    key_TGD, value_TGD = (x.repeat_interleave(sharing, dim=1) for x in (key_TGD, value_TGD))
    mixed = [
        F.scaled_dot_product_attention(
            *(x.transpose(0, 1)[None] for x in (query, key, value)),
            attn_mask=causal_lower_right(len(query), len(key)) if causal else None,
            scale=scale,
        )[0].transpose(0, 1)
        for query, key, value in zip(query_TND.split(own), key_TGD.split(seen), value_TGD.split(seen), strict=True)
    ]
    return torch.cat(mixed)
