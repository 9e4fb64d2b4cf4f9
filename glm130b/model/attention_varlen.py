"""GLM's attention by variable-length flash kernels: two calls for all segments of a micro-batch, whatever their number.

PyTorch's own kernel and that of the package flash-attn align a causal triangle bottom-right, as targets after a context
need it.
"""

import inspect
import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from glm130b.model.segments import PackedSegments
from glm130b.model.varlen_packing import Tokens


class VarlenKernel(Protocol):
    """Attention over sequences laid end to end, as flash-attn defines it: mixed values [T, N, D]."""

    def __call__(
        self,
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
    ) -> Tensor: ...


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
    taken: Tensor = _Take.apply(x, tokens)
    return taken


def put(x: Tensor, tokens: Tokens, *, num_tokens: int) -> Tensor:
    """The rows of ``x`` where ``tokens`` say, among ``num_tokens`` rows that are zero elsewhere."""
    if isinstance(tokens, slice):
        around = (tokens.start, num_tokens - tokens.stop)
        return F.pad(x, (0, 0) * (x.dim() - 1) + around) if any(around) else x
    placed: Tensor = _Put.apply(x, tokens, num_tokens)
    return placed


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


def torch_varlen_kernel() -> VarlenKernel:
    """PyTorch's flash kernel: fp16 and bf16 on CUDA, no dropout; what its interface lacks in 2.10 is made up for."""
    from torch.nn.attention.varlen import varlen_attn

    return adapt_varlen_attn(varlen_attn)


def adapt_varlen_attn(varlen_attn: Any) -> VarlenKernel:
    """PyTorch 2.10 has ``is_causal`` and the default scale only; later ones ``window_size`` and ``scale``, the latest
    also shared key/value heads."""
    known = inspect.signature(varlen_attn).parameters

    def kernel(
        query_TND: Tensor,
        key_TGD: Tensor,
        value_TGD: Tensor,
        cu_query: Tensor,
        cu_key: Tensor,
        max_query: int,
        max_key: int,
        *,
        causal: bool,
        scale: float,
        dropout: float,
    ) -> Tensor:
        assert not dropout
        num_heads, head_dim = query_TND.shape[1:]
        options: dict[str, Any] = {}
        if "window_size" in known:
            options["window_size"] = (-1, 0 if causal else -1)
        else:
            options["is_causal"] = causal
        if "scale" in known:
            options["scale"] = scale
        else:
            assert math.isclose(scale, head_dim**-0.5)
        if num_heads != key_TGD.shape[1]:
            if "enable_gqa" in known:
                options["enable_gqa"] = True
            else:
                sharing = num_heads // key_TGD.shape[1]
                key_TGD, value_TGD = (x.repeat_interleave(sharing, dim=1) for x in (key_TGD, value_TGD))
        mixed: Tensor = varlen_attn(query_TND, key_TGD, value_TGD, cu_query, cu_key, max_query, max_key, **options)
        return mixed

    return kernel


def flash_attn_kernel() -> VarlenKernel:
    """The kernel of the package flash-attn, from version 2.1: as PyTorch's, with dropout."""
    from flash_attn import flash_attn_varlen_func

    def kernel(*arguments: Any, causal: bool, scale: float, dropout: float) -> Tensor:
        mixed: Tensor = flash_attn_varlen_func(*arguments, dropout_p=dropout, softmax_scale=scale, causal=causal)
        return mixed

    return kernel
