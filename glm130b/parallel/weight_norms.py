"""Norms of the fp32 weights and of the change that a step makes to them, and the extremes of Adam's second moment of
the embedding.

The change is read from the state that the optimizer leaves, without a copy of the weights. AdamW and SGD both take

    w' = w - rate (d + decay w),    so that    w' - w = -rate (d + decay w') / (1 - rate decay),

where d is SGD's gradient, or AdamW's m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon). That is the change
but for the rounding of the new weight. A copy would take four bytes for each weight that the rank owns; this takes some
buckets.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from glm130b.parallel.ownership import Owned
from glm130b.parallel.parameter_parts import WHOLE, ParameterParts, squares, sum_of_squares
from glm130b.parallel.topology import Topology

BUCKET_ELEMENTS = 2**22
"""Of a change at a time: 16 MiB in fp32."""

Group = Mapping[str, Any]
"""One of the optimizer's parameter groups, whose one parameter is flat."""
State = Mapping[Tensor, Mapping[str, Tensor]]
"""The optimizer's, by flat parameter."""


class WeightReader:
    """Reads one step that will be applied: made before it, told of each group's update after that."""

    def __init__(
        self, owned: Sequence[Owned], parts: ParameterParts, flat_weights: Sequence[Tensor], topology: Topology
    ) -> None:
        self._owned, self._parts, self._topology = owned, parts, topology
        self._squares_F = squares([part.of(flat_weights[part.group]) for part in owned])
        self._change_squares_F = torch.zeros_like(self._squares_F)
        self._extremes = torch.full((2,), -torch.inf, dtype=torch.float64, device=self._squares_F.device)

    @torch.no_grad()
    def updated(self, index: int, group: Group, state: State) -> None:
        """Read what the optimizer did to parameter group ``index``, while the gradient is still there."""
        moments = state.get(group["params"][0], {})
        steps = float(moments.get("step", 0))  # the fused kernel's lies on the GPU: waited for once
        for column, part in enumerate(self._owned):
            if part.group == index:
                self._change_squares_F[column] = _squared_change(part, group, moments, steps)
                if part.is_embedding and "exp_avg_sq" in moments:
                    lowest, highest = torch.aminmax(part.of(moments["exp_avg_sq"]))
                    self._extremes = torch.stack([-lowest, highest]).double()

    def statistics(self) -> dict[str, float]:
        """By their names in a record: norms before the step, ratios to them of the change's norms; the same numbers on
        every rank. Collective over the job."""
        device = self._topology.device
        sums = torch.stack([self._parts.sums(self._squares_F), self._parts.sums(self._change_squares_F)]).to(device)
        dist.all_reduce(sums)
        norms, changes = (dict(zip(self._parts.names, row, strict=True)) for row in sums.sqrt().tolist())
        named = {}
        for part in (WHOLE, *self._parts.layers):
            suffix = "" if part == WHOLE else f"/{part}"
            named[f"parameter_norm{suffix}"] = norms[part]
            named[f"update_ratio{suffix}"] = changes[part] / norms[part]
        return named | self._second_moment()

    def _second_moment(self) -> dict[str, float]:
        extremes = self._extremes.to(self._topology.device)
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        lowest, highest = extremes.tolist()
        if highest < 0:  # nobody has any: SGD
            return {}
        return {"second_moment/embedding_min": -lowest, "second_moment/embedding_max": highest}


def _squared_change(part: Owned, group: Group, moments: Mapping[str, Tensor], steps: float) -> Tensor:
    """Sum of squares, fp64, of the change that the optimizer's latest of so many ``steps`` has made to a part."""
    (flat,) = group["params"]
    rate, decay = group["lr"], group["weight_decay"]
    total = torch.zeros((), dtype=torch.float64, device=flat.device)
    for start in range(part.group_start, part.group_start + part.length, BUCKET_ELEMENTS):
        bucket = slice(start, min(start + BUCKET_ELEMENTS, part.group_start + part.length))
        total += sum_of_squares(_direction(flat, group, moments, steps, bucket).add(flat[bucket], alpha=decay))
    return total * (rate / (1 - rate * decay)) ** 2


def _direction(flat: Tensor, group: Group, moments: Mapping[str, Tensor], steps: float, bucket: slice) -> Tensor:
    """What a bucket of the flat weights was moved against, before the learning rate and the decay."""
    if "exp_avg" not in moments:
        assert flat.grad is not None
        return flat.grad[bucket]
    beta1, beta2 = group["betas"]
    mean = moments["exp_avg"][bucket] / (1 - beta1**steps)
    return mean.div_((moments["exp_avg_sq"][bucket] / (1 - beta2**steps)).sqrt_().add_(group["eps"]))
