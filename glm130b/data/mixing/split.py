"""Which objective each draw of a text source has: rounding of what an objective is due of the source's draws."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Optional

from glm130b.data.mixing.due import SAMPLE, Due

_SQUARE = SAMPLE * SAMPLE


class Split:
    """A choice between two sides for each of some draws: how many go left, in closed form.

    After any number of draws the left side has had what it was due of them, rounded up from a fraction of 1 - ``phase``
    on: it is off by the larger of ``phase`` and 1 - ``phase`` at most.
    """

    def __init__(self, knots: Sequence[int], shares: Sequence[int], *, phase: float, at_first: int = 0) -> None:
        """The left side is due ``shares[k]`` of each draw from ``knots[k]`` on, both in units of 1 / ``SAMPLE``, and
        has been due ``at_first`` before, in units of its square.
        """
        self._knots, self._shares, self._phase = knots, shares, int(phase * SAMPLE) * SAMPLE
        self.totals = [at_first]
        for (start, end), share in zip(pairwise(knots), shares, strict=False):
            self.totals.append(self.totals[-1] + (end - start) * share)

    def due(self, draws: int) -> int:
        """What the left side is due of the first ``draws``, in units of 1 / ``SAMPLE``^2."""
        draws *= SAMPLE
        piece = bisect_right(self._knots, draws) - 1
        return self.totals[piece] + (draws - self._knots[piece]) * self._shares[piece]

    def num_left(self, draws: int) -> int:
        """How many of the first ``draws`` go left."""
        return (self.due(draws) + self._phase) // _SQUARE

    def goes_left(self, draw: int) -> tuple[bool, int]:
        """Whether the draw with this number goes left, and how many before it do."""
        before = self.num_left(draw)
        return self.num_left(draw + 1) > before, before


class ObjectiveSplit:
    """The objective of each draw of one text source in one era: first [gMASK] or not, then [MASK] or [sMASK].

    [gMASK] is off its due of the draws by less than 1. [MASK] and [sMASK] are off theirs of the other draws by 1/2, so
    of all draws by less than 1.5, and by less than 1 where there is only one of them. Shares may change with the
    samples: the k-th draw has the shares that stand when the source is due k draws, and if it is never due as many,
    those that stood when it ended.
    """

    def __init__(
        self,
        draws: int,
        due: Due,
        objectives: Mapping[str, Sequence[int]],
        *,
        phase: float,
        before: Optional["ObjectiveSplit"] = None,
    ) -> None:
        """``draws`` of the source came before the era, in which ``before`` held; ``due`` is that of the source, and
        ``objectives`` has the shares of its draws from the same knots on.
        """
        pieces = max(1, bisect_left(due.knots, due.ends))
        gmask, masks, smasks = (objectives[name][:pieces] for name in ("gmask", "mask", "smask"))
        knots = [draws * SAMPLE + total - due.totals[0] for total in due.totals[:pieces]]
        self._gmask: Split = Split(knots, gmask, phase=phase, at_first=before._gmask.due(draws) if before else 0)
        others = draws - self._gmask.num_left(draws)
        gmask_since = [(total - self._gmask.totals[0]) // SAMPLE for total in self._gmask.totals]
        other_knots = [
            others * SAMPLE + knot - knots[0] - since for knot, since in zip(knots, gmask_since, strict=True)
        ]
        mask: list[int] = []
        for one, other in zip(masks, smasks, strict=True):
            # Where both are 0 the last of the other draws may be still to come.
            mask.append(one * SAMPLE // (one + other) if one + other else mask[-1] if mask else SAMPLE)
        self._mask: Split = Split(other_knots, mask, phase=0.5, at_first=before._mask.due(others) if before else 0)

    def objective(self, draw: int) -> str:
        """The objective of the draw with this number, counted over all eras."""
        is_gmask, num_gmask = self._gmask.goes_left(draw)
        if is_gmask:
            return "gmask"
        return "mask" if self._mask.goes_left(draw - num_gmask)[0] else "smask"

    def counts(self, draws: int) -> dict[str, int]:
        """How many of the first ``draws`` had each objective."""
        gmask = self._gmask.num_left(draws)
        mask = self._mask.num_left(draws - gmask)
        return {"gmask": gmask, "mask": mask, "smask": draws - gmask - mask}
