"""The word embedding's gradient in its two shares: what came through the token look-up, what came through the logits.

With tied weights one gradient is the sum of both, and the paper's embedding gradient shrink (section 3.2) is about what
the two do to each other. Both are read as they enter the sum, so after the shrink, and as means over the data axis.

Over several stages the shares arise apart, on the first stage and on the last: each is reduced once more over the data
axis, in buckets, before the stages add them up. On one stage autograd adds them up as they come: there the look-up's
share is gathered a second time, in fp32, and the logits' share is what is left of the whole. Untied, the embedding's
gradient is the input side, and nothing needs to be done.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glm130b.model.stage import Stage
from glm130b.parallel.parameter_parts import sum_of_squares
from glm130b.parallel.topology import Axis, Topology

BUCKET_ELEMENTS = 2**24
"""Of a reduction, or of a difference: 64 MiB in fp32."""


@dataclass(frozen=True)
class EmbeddingGradient:
    """What this data rank owns of the embedding's reduced gradient."""

    values: Tensor
    """Flat; times ``factor`` the mean gradient, unscaled, before clipping."""
    start: int
    """Of the values in the flattened local embedding."""
    factor: float


class EmbeddingSides(ABC):
    """Measures the shares of one step after another."""

    names: tuple[str, ...] = ("input_side", "logit_side")

    @abstractmethod
    def read_apart(self, gradient_of: Callable[[nn.Parameter], Tensor]) -> None:
        """After the last micro-batch, before the stages add up their shares. Collective over the data axis."""

    @abstractmethod
    def squares(self, owned: EmbeddingGradient | None, loss_scale: float) -> Tensor:
        """This rank's part of the sum of squares of each side, fp64 [2]. Collective over the data axis."""

    @abstractmethod
    def clear(self) -> None:
        """Forget the step."""


def build_embedding_sides(stage: Stage, topology: Topology) -> EmbeddingSides:
    """What measures them in this layout. Before the first forward pass."""
    if not stage.model.tie_embedding:
        return UntiedSides()
    return SidesOnTwoStages(stage, topology) if topology.pipeline.size > 1 else SidesOnOneStage(stage, topology)


class UntiedSides(EmbeddingSides):
    """The embedding has no logit side; its head's gradient is the kind ``projection``."""

    names = ("input_side",)

    def read_apart(self, gradient_of: Callable[[nn.Parameter], Tensor]) -> None:
        pass

    def squares(self, owned: EmbeddingGradient | None, loss_scale: float) -> Tensor:
        if owned is None:
            return torch.zeros(1, dtype=torch.float64)
        return owned.factor**2 * sum_of_squares(owned.values).reshape(1)

    def clear(self) -> None:
        pass


class SidesOnTwoStages(EmbeddingSides):
    """The first stage's gradient is the input side's, the last one's the logit side's."""

    def __init__(self, stage: Stage, topology: Topology) -> None:
        self._weights = [chunk.tied_weight for chunk in stage if chunk.tied_weight is not None]
        self._side = 0 if topology.is_first_stage else 1
        self._data, self._device = topology.data, topology.device
        self.clear()

    def read_apart(self, gradient_of: Callable[[nn.Parameter], Tensor]) -> None:
        self.clear()
        for weight in self._weights:
            self._squares[self._side] = _reduced_sum_of_squares(gradient_of(weight).reshape(-1), self._data)

    def squares(self, owned: EmbeddingGradient | None, loss_scale: float) -> Tensor:
        return self._squares / (self._data.size * loss_scale) ** 2

    def clear(self) -> None:
        self._squares = torch.zeros(2, dtype=torch.float64, device=self._device)


class SidesOnOneStage(EmbeddingSides):
    """The look-up's share is gathered where it arises, from the gradient of what was looked up.

    It takes as much memory as the embedding in fp32, on each tensor rank; a model that fits on one stage has that.
    """

    def __init__(self, stage: Stage, topology: Topology) -> None:
        self._data = topology.data
        self._words: Any = next(iter(stage)).embedding.word
        self._input_VH = torch.zeros_like(self._words.weight, dtype=torch.float32)
        self._words.register_forward_hook(self._listen)

    def _listen(self, words: nn.Module, arguments: tuple[Tensor], looked_up_BSH: Tensor) -> None:
        if looked_up_BSH.requires_grad:
            looked_up_BSH.register_hook(lambda gradient_BSH: self._gather(arguments[0], gradient_BSH))

    @torch.no_grad()
    def _gather(self, tokens_BS: Tensor, gradient_BSH: Tensor) -> None:
        """Add each token's gradient to its word's row, where this tensor rank has the row."""
        rows = tokens_BS.flatten() - self._words.vocab_start_index
        is_here = (rows >= 0) & (rows < len(self._input_VH))
        values = gradient_BSH.flatten(0, 1).float() * is_here[:, None]
        self._input_VH.index_add_(0, rows * is_here, values)

    def read_apart(self, gradient_of: Callable[[nn.Parameter], Tensor]) -> None:
        pass

    def squares(self, owned: EmbeddingGradient | None, loss_scale: float) -> Tensor:
        flat = self._input_VH.view(-1)
        if self._data.size > 1:
            dist.all_reduce(flat, group=self._data.group)
        found = torch.zeros(2, dtype=torch.float64, device=flat.device)
        if owned is not None:
            input_side = flat.narrow(0, owned.start, len(owned.values)).div_(self._data.size * loss_scale)
            for ours, whole in zip(input_side.split(BUCKET_ELEMENTS), owned.values.split(BUCKET_ELEMENTS), strict=True):
                left = whole.to(ours.device, torch.float32) * owned.factor - ours
                found += torch.stack([sum_of_squares(ours), sum_of_squares(left)])
        return found

    def clear(self) -> None:
        self._input_VH.zero_()


def _reduced_sum_of_squares(gradient: Tensor, data: Axis) -> Tensor:
    """This rank's part of the sum of squares of a flat gradient that was summed over the data axis, in fp32.

    Of each bucket a rank receives the sum of its own part only, so nothing whole is held twice.
    """
    if data.size == 1:
        return sum_of_squares(gradient)
    total = torch.zeros((), dtype=torch.float64, device=gradient.device)
    for bucket in gradient.split(BUCKET_ELEMENTS // data.size * data.size):
        padded = nn.functional.pad(bucket.float(), (0, -len(bucket) % data.size))
        summed = padded.new_empty(len(padded) // data.size)
        dist.reduce_scatter(summed, list(padded.chunk(data.size)), group=data.group)
        total += sum_of_squares(summed)
    return total
