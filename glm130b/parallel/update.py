"""Between the reduced gradient and the update: reads a gradient as DeepSpeed leaves it, and judges the step.

When DeepSpeed calls an optimizer it has unscaled and clipped the gradients of that optimizer's groups and of no others,
and has taken the next step's loss scale. Both are undone in the numbers that are read here; the weights have not moved.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.parallel.embedding_sides import EmbeddingSides
from glm130b.parallel.gradient_norms import GradientReader
from glm130b.parallel.ownership import Owned
from glm130b.parallel.parameter_parts import ParameterParts
from glm130b.parallel.topology import Topology
from glm130b.parallel.weight_norms import WeightReader


@dataclass(frozen=True)
class GradientNorms:
    """L2 norms of a step's mean gradient, unscaled, before clipping; the same numbers on every rank."""

    whole: float
    """Over all parameters."""
    embedding: float
    """Of the word embedding; with tied weights that is the output projection, too."""


NOT_FINITE = GradientNorms(whole=math.inf, embedding=math.inf)

Permit = Callable[[GradientNorms], bool]
"""Whether a step with this gradient may change the weights."""


def always(norms: GradientNorms) -> bool:
    return True


class Update:
    """What one step after the other comes to. The optimizers ask it before they change anything, and tell it after."""

    def __init__(
        self,
        config: RunConfig,
        zero: Any,
        *,
        loss_scale: Callable[[], float],
        owned: Sequence[Owned],
        sides: EmbeddingSides | None,
        topology: Topology,
    ) -> None:
        """``zero`` is DeepSpeed's optimizer, ``loss_scale`` its scale at the time of the call."""
        self._zero, self._loss_scale = zero, loss_scale
        self._largest_norm = config.optimizer.clip_gradient_norm
        self._is_offloaded = config.parallel.offload_optimizer
        self._owned, self._topology = owned, topology
        self._parts = ParameterParts(config.model, owned)
        self._reader = GradientReader(owned, self._parts, sides, topology)
        self.flat_masters: list[Tensor] = [group["params"][0] for group in zero.optimizer.param_groups]
        """The fp32 weights that this rank owns, by parameter group."""
        self.begin(always, read_weights=False)

    def begin(self, permit: Permit, *, read_weights: bool) -> None:
        """Before DeepSpeed's step. What remains of it when that finds an overflow, and calls no optimizer, is a step
        that is not finite."""
        self._permit, self._reads_weights = permit, read_weights
        self._scale = self._loss_scale()  # of the backward passes
        self._whole = math.inf  # DeepSpeed's global norm, by this rank's sum: what it clipped by
        self._weights: WeightReader | None = None
        self._is_permitted: bool | None = None  # None until the optimizers ask
        self._of_the_gradient: Mapping[str, float] = {}
        self.norms = NOT_FINITE

    @property
    def is_applied(self) -> bool:
        return bool(self._is_permitted)

    def statistics(self) -> dict[str, float]:
        """More numbers by their names in a record. Collective over the job where the weights were read."""
        return {**self._of_the_gradient, **(self._weights.statistics() if self._weights else {})}

    @torch.no_grad()
    def may_update(self) -> bool:
        """What the optimizers ask, once for each parameter group: decided at the first, it holds for the step."""
        about_to_step = self._zero.optimizer.param_groups
        if self._is_permitted is None:
            self._whole = float(self._zero._global_grad_norm)
            numbers = self._read_gradient({id(group["params"][0]) for group in about_to_step})
            if numbers is not None:
                self.norms = GradientNorms(numbers.pop("gradient_norm"), numbers.pop("embedding_gradient_norm"))
                self._of_the_gradient = numbers
            self._is_permitted = self.norms != NOT_FINITE and self._permit(self.norms)
            if self._is_permitted and self._reads_weights:
                self._weights = WeightReader(self._owned, self._parts, self.flat_masters, self._topology)
        if self._is_permitted and self._loss_scale() != self._scale:
            # DeepSpeed has taken the next step's scale, which has just doubled; unclipped, half the gradient is left.
            for group in about_to_step:
                group["params"][0].grad *= self._divisor(self._loss_scale()) / self._divisor(self._scale)
        return self._is_permitted

    def updated(self, groups: Sequence[dict[str, Any]]) -> None:
        """What the optimizers tell, after each parameter group."""
        if self._weights is not None:
            for index, flat in enumerate(self.flat_masters):
                for group in groups:
                    if group["params"][0] is flat:
                        self._weights.updated(index, group, self._zero.optimizer.state)

    def _read_gradient(self, ready: set[int]) -> dict[str, float] | None:
        """At the first question. The ``ready`` groups, which the optimizer is about to step, have been unscaled and
        clipped by then; the others are as the reduction left them."""
        gradients, factors = [], []
        for index, flat in enumerate(self.flat_masters):
            is_ready = id(flat) in ready
            gradient = flat.grad if is_ready or self._is_offloaded else self._unflattened(index)
            assert gradient is not None
            gradients.append(gradient)
            factors.append((self._divisor(self._loss_scale()) if is_ready else 1.0) / self._scale)
        return self._reader.read(gradients, factors, loss_scale=self._scale)

    def _divisor(self, loss_scale: float) -> float:
        """What unscales and clips a gradient, by DeepSpeed's formula; it takes the next step's loss scale."""
        whole = self._whole * self._scale / loss_scale
        return max(1.0, (whole + 1e-6) / self._largest_norm) * loss_scale

    def _unflattened(self, group: int) -> Tensor:
        """A copy of the reduced gradient of a later group, the vectors, which DeepSpeed has in pieces still."""
        return torch.cat([piece.reshape(-1) for piece in self._zero.averaged_gradients[group]])
