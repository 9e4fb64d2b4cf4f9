"""The variable-length flash kernels, by one signature: PyTorch's own and that of the package flash-attn.

Both align a causal triangle bottom-right, as targets after a context need it.
"""

import inspect
import math
from typing import Any, Protocol

from torch import Tensor


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
        *sequences: Tensor | int,
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
        return varlen_attn(query_TND, key_TGD, value_TGD, *sequences, **options)

    return kernel


def flash_attn_kernel() -> VarlenKernel:
    """The kernel of the package flash-attn, from version 2.1: as PyTorch's, with dropout."""
    from flash_attn import flash_attn_varlen_func

    def kernel(*arguments: Any, causal: bool, scale: float, dropout: float) -> Tensor:
        return flash_attn_varlen_func(*arguments, dropout_p=dropout, softmax_scale=scale, causal=causal)

    return kernel
