"""Rotary positions (RoFormer; GLM-130B paper, section 2.1), one angle for every token of the batch.

Positions are data, not an index: every token of a [MASK] target carries the position of its blank. With positions of
two axes (ChatGLM-6B) the first half of a head turns by the position, the second half by the block position.
"""

from dataclasses import dataclass

import torch
from megatron.core.jit import jit_fuser
from torch import Tensor


@dataclass(frozen=True)
class RotaryTable:
    """Cosine and sine of every token's angles, [S, B, 1, A, D / A] each, for A axes."""

    cos: Tensor
    sin: Tensor
    fused: bool = False
    """Turn by one compiled kernel instead of five."""

    def rotate(self, x_SBND: Tensor) -> Tensor:
        """Turn dimensions ``i`` and ``i + D / 2A`` of each of a head's A parts together."""
        x_SBNAd = x_SBND.unflatten(-1, self.cos.shape[-2:])
        turned: Tensor = (_fused_turn if self.fused else turn)(x_SBNAd, self.cos, self.sin)
        return turned.flatten(-2)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The two halves of the last dimension as the coordinates of points, rotated."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


_fused_turn = jit_fuser(turn)


def rotary_table(
    positions_BAS: Tensor,
    *,
    head_dim: int,
    base: float,
    table_dtype: torch.dtype,
    dtype: torch.dtype,
    fused: bool = False,
) -> RotaryTable:
    """The table for positions [B, A, S], in ``dtype``: pair ``i`` of a part turns by ``position * base ** (-2 i A /
    D)``.

    ``table_dtype`` rounds frequencies, positions and angles on the way. fp32 is right; the original run had fp16, in
    which a position above 2048 is no longer exact, and its weights fit those angles.
    """
    part = head_dim // positions_BAS.shape[1]
    exponents = torch.arange(0, part, 2, dtype=torch.float32, device=positions_BAS.device) / part
    frequencies = (1.0 / base**exponents).to(table_dtype)
    angles_SBAi = positions_BAS.permute(2, 0, 1)[..., None].to(table_dtype) * frequencies
    angles_SB1Ad = torch.cat((angles_SBAi, angles_SBAi), dim=-1)[:, :, None]
    return RotaryTable(angles_SB1Ad.cos().to(dtype), angles_SB1Ad.sin().to(dtype), fused)
