"""Rotary positions (RoFormer; GLM-130B paper, section 2.1), one angle table per token of the batch.

Positions are data, not an index: every token of a [MASK] target carries the position of its blank.
"""

import torch
from torch import Tensor


def rotary_angles(positions_BS: Tensor, *, head_dim: int, base: float) -> Tensor:
    """Angles [S, B, 1, head_dim] in fp32 for positions [B, S], in the rotate-half layout of Megatron-core.

    Dimension ``i`` and ``i + head_dim / 2`` of a head turn together by ``position * base ** (-2 i / head_dim)``. The
    angles are fp32 whatever the model's dtype, since in fp16 a position above 2048 is no longer exact; Megatron-core
    rounds their sines and cosines to the activations' dtype.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_BS.device) / head_dim
    angles_SBd = positions_BS.t().to(torch.float32)[..., None] * base**-exponents
    return torch.cat((angles_SBd, angles_SBd), dim=-1)[:, :, None, :]
