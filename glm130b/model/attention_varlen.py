"""GLM's attention by variable-length flash kernels: two calls for all segments of a micro-batch, whatever their
number."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glm130b.model.segments import PackedSegments
from glm130b.model.varlen_kernels import VarlenKernel
from glm130b.model.varlen_packing import Tokens


def attend_with_varlen(
    kernel: VarlenKernel,
    query_SBND: Tensor,
    key_SBGD: Tensor,
    value_SBGD: Tensor,
    segments: PackedSegments,
    *,
    scale: float,
    dropout: float,
    slopes_N: Tensor | None,
) -> Tensor:
    """Mixed values [S, B, N * D]; padding gives zeros. ALiBi is not for these kernels, which know no positions."""
    assert slopes_N is None
    packing = segments.packing(query_SBND.device)
    if not packing.calls:
        return torch.zeros_like(query_SBND).flatten(2)
    query, key, value = (x.flatten(0, 1) for x in (query_SBND, key_SBGD, value_SBGD))
    queries = take(query, packing.queries).split([call.num_queries for call in packing.calls])
    mixed = [
        kernel(
            query_TND,
            take(key, call.keys),
            take(value, call.keys),
            call.cu_query,
            call.cu_key,
            call.max_query,
            call.max_key,
            causal=call.causal,
            scale=scale,
            dropout=dropout,
        )
        for call, query_TND in zip(packing.calls, queries, strict=True)
    ]
    mixed_TND = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    return put(mixed_TND, packing.queries, num_tokens=len(query)).view(query_SBND.shape).flatten(2)


def take(x: Tensor, tokens: Tokens) -> Tensor:
    """The rows of ``x`` that ``tokens`` number, each at most once; no copy where they follow each other."""
    if isinstance(tokens, slice):
        return x[tokens]
    return _Take.apply(x, tokens)


def put(x: Tensor, tokens: Tokens, *, num_tokens: int) -> Tensor:
    """The rows of ``x`` where ``tokens`` say, among ``num_tokens`` rows that are zero elsewhere."""
    if isinstance(tokens, slice):
        around = (tokens.start, num_tokens - tokens.stop)
        return F.pad(x, (0, 0) * (x.dim() - 1) + around) if any(around) else x
    return _Put.apply(x, tokens, num_tokens)


def _placed(x: Tensor, tokens: Tensor, num_tokens: int) -> Tensor:
    return x.new_zeros((num_tokens, *x.shape[1:])).index_copy_(0, tokens, x)


class _Take(torch.autograd.Function):
    """``index_select``, whose own gradient adds atomically because rows might repeat; here none does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.num_tokens = len(x)
        return x.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (tokens,) = ctx.saved_tensors
        return _placed(gradient, tokens, ctx.num_tokens), None


class _Put(torch.autograd.Function):
    """The transpose of ``_Take``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tokens: Tensor, num_tokens: int) -> Tensor:
        ctx.save_for_backward(tokens)
        return _placed(x, tokens, num_tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (tokens,) = ctx.saved_tensors
        return gradient.index_select(0, tokens), None, None
