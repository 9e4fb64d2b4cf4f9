"""Norms of a step's gradient, whole and in parts, from what each data rank owns of it: one small all-reduce."""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from glm130b.parallel.embedding_sides import EmbeddingGradient, EmbeddingSides
from glm130b.parallel.ownership import Owned
from glm130b.parallel.parameter_parts import WORD_EMBEDDING, ParameterParts, squares
from glm130b.parallel.topology import Topology


class GradientReader:
    """Reads a gradient after its reduction over the data axis, before anything has changed."""

    def __init__(
        self, owned: Sequence[Owned], parts: ParameterParts, sides: EmbeddingSides | None, topology: Topology
    ) -> None:
        self._owned, self._parts, self._sides, self._topology = owned, parts, sides, topology

    def read(
        self, flat_gradients: Sequence[Tensor], factors: Sequence[float], *, whole: float, loss_scale: float
    ) -> dict[str, float] | None:
        """Every norm by its name in a record, of the mean gradient, unscaled, before clipping; the same numbers on each
        rank. None when some element on some rank is not finite. Collective over the job.

        ``flat_gradients[g]`` times ``factors[g]`` is that gradient in parameter group g, as far as this rank owns it.
        ``whole`` is the global norm, of which every rank takes the first one's: DeepSpeed sums it within each replica,
        where the order may differ in the last bit. ``loss_scale`` is that of the backward passes.
        """
        squares_F = squares([part.of(flat_gradients[part.group]) for part in self._owned])
        factors_F = torch.tensor([factors[part.group] for part in self._owned], dtype=torch.float64)
        sums = [
            torch.tensor([whole if self._topology.rank == 0 else 0.0], dtype=torch.float64),
            self._parts.sums(squares_F * factors_F.square().to(squares_F.device)),
        ]
        if self._sides is not None:
            sums.append(self._sides.squares(self._embedding(flat_gradients, factors), loss_scale))
        together = torch.cat([each.to(self._topology.device) for each in sums])
        dist.all_reduce(together)
        whole, *summed = together.tolist()
        if not math.isfinite(sum(summed, start=whole)):
            return None
        return {"gradient_norm": whole} | self._named([math.sqrt(square) for square in summed])

    def _embedding(self, flat_gradients: Sequence[Tensor], factors: Sequence[float]) -> EmbeddingGradient | None:
        for part in self._owned:
            if part.is_embedding:
                return EmbeddingGradient(part.of(flat_gradients[part.group]), part.parameter_start, factors[part.group])
        return None

    def _named(self, norms: Sequence[float]) -> dict[str, float]:
        by_part = dict(zip(self._parts.names, norms, strict=False))
        named = {f"gradient_norm/{part}": by_part[part] for part in (*self._parts.kinds, *self._parts.layers)}
        named["embedding_gradient_norm"] = by_part[WORD_EMBEDDING]
        if self._sides is not None:
            sides = zip(self._sides.names, norms[len(self._parts.names) :], strict=True)
            named |= {f"embedding_gradient_norm/{side}": norm for side, norm in sides}
        return named
