"""Who attends to whom, without a mask: the segments of a micro-batch and where its tokens stand."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glm130b.model.varlen_packing import VarlenPacking

if TYPE_CHECKING:
    from glm130b.model.rotary import RotaryTable

Rows = Sequence[Sequence[tuple[int, int, int]]]
"""Per row, per sample: (start, context length, target length) in tokens."""


@dataclass(frozen=True)
class PackedSegments:
    """``rows[b]`` lists (start, context_length, target_length): a query sees the whole context of its segment, and of
    the targets those up to itself. Tokens outside every segment are padding.

    Megatron-core hands this object through its ``packed_seq_params`` slot, the one that survives activation
    recomputation; ``qkv_format`` and ``cp_group`` are what its attention reads there.
    """

    rows: Rows
    rotary: "RotaryTable | None" = None
    """Angles of every token; None without rotary positions."""
    positions_BS: Tensor | None = None
    """Positions [B, S], for a bias by distance; None without one."""
    qkv_format: str = "sbhd"
    cp_group: None = None
    _packings: dict[torch.device, VarlenPacking] = field(default_factory=dict, init=False, repr=False, compare=False)

    def causal(self) -> "PackedSegments":
        """The same samples without a context that sees all of itself."""
        rows = [[(start, 0, context + target) for start, context, target in row] for row in self.rows]
        return replace(self, rows=rows)

    def packing(self, device: torch.device) -> VarlenPacking:
        """The segments as variable-length calls; made once for all layers and their recomputation."""
        if device not in self._packings:
            self._packings[device] = VarlenPacking.of(self.rows, device)
        return self._packings[device]
