"""A copy of this rank's state in host memory: the only thing that training waits for while it saves."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from glm130b.checkpoint.planner import Slice


class HostCopy:
    """Memory for one copy, kept from save to save. 12 bytes for every parameter that this rank's ZeRO part holds."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def take(self, slices: Sequence[Slice]) -> list[Slice]:
        """The slices with their values of now; they hold until the next call."""
        num_elements = sum(piece.view.numel() for piece in slices)
        on_gpu = any(piece.view.is_cuda for piece in slices)
        if self._memory is None or self._memory.numel() != num_elements:
            self._memory = None  # the old one goes first
            self._memory = torch.empty(num_elements, dtype=torch.float32, pin_memory=on_gpu)
        copies, begin = [], 0
        for piece in slices:
            place = self._memory[begin : begin + piece.view.numel()].view(piece.view.shape)
            place.copy_(piece.view, non_blocking=True)
            copies.append(replace(piece, view=place))
            begin += place.numel()
        if on_gpu:
            torch.cuda.synchronize()
        return copies
