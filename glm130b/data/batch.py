"""Rows put side by side: what one pipeline step sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from glm130b.data.mixing.shares import Kind
from glm130b.data.objectives.row import Row, Segment


@dataclass(frozen=True)
class MicroBatch:
    """B rows of S tokens. Every rank of a pipeline builds the same one itself."""

    tokens_BS: torch.Tensor
    """int64 [B, S]."""
    targets_BS: torch.Tensor
    """int64 [B, S]."""
    positions_B2S: torch.Tensor
    """int64 [B, 2, S]: positions, and below them block positions."""
    loss_weights_BS: torch.Tensor
    """float32 [B, S]: 1 / (number of loss tokens of the row) on loss tokens, 0 elsewhere, so that a row's loss is
    ``(token_loss * weights).sum()``."""
    segments: tuple[tuple[Segment, ...], ...]
    """Per row."""
    kinds: tuple[Kind, ...]
    """Per row: its objective and its source."""

    def to(self, device: torch.device | str) -> "MicroBatch":
        """The same micro-batch with its tensors on ``device``."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "MicroBatch":
        """The same micro-batch in page-locked memory, from which a GPU copies without waiting."""
        return self._with_tensors(torch.Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "MicroBatch":
        return replace(
            self,
            tokens_BS=change(self.tokens_BS),
            targets_BS=change(self.targets_BS),
            positions_B2S=change(self.positions_B2S),
            loss_weights_BS=change(self.loss_weights_BS),
        )


def collate(rows: Sequence[Row]) -> MicroBatch:
    """Stack rows of equal length; a row without loss tokens gets weights 0."""
    loss_mask_BS = np.stack([row.loss_mask for row in rows])
    num_loss_tokens_B1 = loss_mask_BS.sum(axis=1, keepdims=True)
    return MicroBatch(
        tokens_BS=torch.from_numpy(np.stack([row.tokens for row in rows])),
        targets_BS=torch.from_numpy(np.stack([row.targets for row in rows])),
        positions_B2S=torch.from_numpy(np.stack([(row.positions, row.block_positions) for row in rows])),
        loss_weights_BS=torch.from_numpy((loss_mask_BS / np.maximum(num_loss_tokens_B1, 1)).astype(np.float32)),
        segments=tuple(row.segments for row in rows),
        kinds=tuple(Kind(row.objective, row.source) for row in rows),
    )
