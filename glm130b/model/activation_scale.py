"""The scale of every layer's output: its root mean square over the rows, tokens and channels of a step.

Behind pre-norm layers it grows with the depth until fp16 holds it no more; DeepNorm bounds it (GLM-130B paper, section
3.3).
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from glm130b.model.layer import Layer
from glm130b.model.stage import Stage


class ActivationScale:
    """Adds up the squares of what this process's layers hand on, on its device; it waits for nothing.

    Padding is counted like any token, an evaluation is not, nor is a forward pass that recomputation repeats. Sums and
    counts of all processes are added: a sequence cut over the tensor axis comes together so, and where every tensor
    rank holds the whole output both are multiplied alike.
    """

    def __init__(self, stage: Stage) -> None:
        """Listens to the stage's layers from now on."""
        layers = [layer for layer in stage.modules() if isinstance(layer, Layer)]
        self._squares_N = torch.zeros(
            stage.model.num_layers, dtype=torch.float64, device=next(stage.parameters()).device
        )
        self._counts = [0] * stage.model.num_layers
        for layer in layers:
            layer.register_forward_hook(self._listen)

    def take(self) -> list[float]:
        """Sum of squares and number of elements of every layer of the model since the last time, 0 of layers that are
        elsewhere. Waits for the device."""
        pairs = zip(self._squares_N.tolist(), map(float, self._counts), strict=True)
        self._squares_N.zero_()
        self._counts = [0] * len(self._counts)
        return list(chain.from_iterable(pairs))

    def values(self, sums: Sequence[float]) -> dict[str, float]:
        """``activation_scale/layer.<i>`` of what ``take`` gave, added over all processes."""
        pairs = enumerate(zip(sums[::2], sums[1::2], strict=True))
        return {
            f"activation_scale/layer.{layer}": math.sqrt(square / count) for layer, (square, count) in pairs if count
        }

    def _listen(self, layer: Any, _: Any, handed_on: tuple[Tensor, None]) -> None:
        # Full recomputation runs a layer first without a graph, and once more with one in the backward pass.
        is_first_pass = torch.is_grad_enabled() != (layer.config.recompute_granularity == "full")
        if layer.training and is_first_pass:
            out_SBH = handed_on[0].detach()
            index = layer.layer_number - 1
            self._squares_N[index] += torch.linalg.vector_norm(out_SBH, dtype=torch.float32).double().square()
            self._counts[index] += out_SBH.numel()
