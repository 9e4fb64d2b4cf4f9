"""Embedding gradient shrink (GLM-130B paper, section 3.2): identity forward, gradient times alpha.

The paper writes it as ``w * alpha + w.detach() * (1 - alpha)``, which at alpha 0.1 rounds one fp16 value in
twelve away from ``w``. Scaling in the backward pass leaves the forward pass bit for bit as it was.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class ShrinkFactors:
    """Factors on the two shares of the tied embedding's gradient; 1.0 leaves a share alone."""

    input_side: float = 1.0
    """On the gradient that arrives through the token look-up."""
    logit_side: float = 1.0
    """On the gradient that arrives through the output projection."""


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.alpha, None


def shrink_gradient(x: Tensor, alpha: float) -> Tensor:
    """``x`` itself, whose gradient arrives multiplied by ``alpha``."""
    return x if alpha == 1.0 else _ScaleGradient.apply(x, alpha)
