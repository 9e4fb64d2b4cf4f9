"""Norms of a step's gradient, whole and in parts, from what each data rank owns of it: one small all-reduce."""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from glm130b.parallel.embedding_sides import EmbeddingGradient, EmbeddingSides
from glm130b.parallel.ownership import Owned
from glm130b.parallel.parameter_parts import WHOLE, WORD_EMBEDDING, ParameterParts, squares
from glm130b.parallel.topology import Topology


class GradientReader:
    """Reads a gradient after its reduction over the data axis, before anything has changed."""

    def __init__(
        self, owned: Sequence[Owned], parts: ParameterParts, sides: EmbeddingSides | None, topology: Topology
    ) -> None:
        self._owned, self._parts, self._sides, self._topology = owned, parts, sides, topology

    def read(
        self, flat_gradients: Sequence[Tensor], factors: Sequence[float], *, loss_scale: float
    ) -> dict[str, float] | None:
        """Every norm by its name in a record, of the mean gradient, unscaled, before clipping; the same numbers on each
        rank. None when some element on some rank is not finite. Collective over the job.

        ``flat_gradients[g]`` times ``factors[g]`` is that gradient in parameter group g, as far as this rank owns it.
        ``loss_scale`` is that of the backward passes. DeepSpeed's own global norm is not among them: it sums in fp32,
        and on a CPU that loses digits from a million elements on.
        """
        squares_F = squares([part.of(flat_gradients[part.group]) for part in self._owned])
        factors_F = torch.tensor([factors[part.group] for part in self._owned], dtype=torch.float64)
        sums = [self._parts.sums(squares_F * factors_F.square().to(squares_F.device, non_blocking=True))]
        if self._sides is not None:
            sums.append(self._sides.squares(self._embedding(flat_gradients, factors), loss_scale))
        together = torch.cat([each.to(self._topology.device) for each in sums])
        dist.all_reduce(together)
        summed = together.tolist()
        return self._named([math.sqrt(square) for square in summed]) if math.isfinite(sum(summed)) else None

    def _embedding(self, flat_gradients: Sequence[Tensor], factors: Sequence[float]) -> EmbeddingGradient | None:
        for part in self._owned:
            if part.is_embedding:
                return EmbeddingGradient(part.of(flat_gradients[part.group]), part.parameter_start, factors[part.group])
        return None

    def _named(self, norms: Sequence[float]) -> dict[str, float]:
        by_part = dict(zip(self._parts.names, norms, strict=False))
        named = {"gradient_norm": by_part[WHOLE], "embedding_gradient_norm": by_part[WORD_EMBEDDING]}
        named |= {f"gradient_norm/{part}": by_part[part] for part in (*self._parts.kinds, *self._parts.layers)}
        if self._sides is not None:
            sides = zip(self._sides.names, norms[len(self._parts.names) :], strict=True)
            named |= {f"embedding_gradient_norm/{side}": norm for side, norm in sides}
        return named
