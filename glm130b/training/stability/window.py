"""The recent past of one signal, and how far a value stands out of it."""

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from glm130b.config.section import Section
from glm130b.config.stability import SpikeRule

_DEVIATION_OF_NORMAL = 1.4826 / math.sqrt(2)
"""Standard deviation of independent normal numbers over the median absolute difference of two."""


@dataclass(frozen=True)
class Level:
    """Where a signal stands, by medians, which a few wild values do not move."""

    median: float
    deviation: float
    """Of the differences between neighbours, so that a loss on its way down does not pass for a noisy one."""

    @classmethod
    def of(cls, values: tuple[float, ...]) -> "Level":
        differences = [abs(after - before) for before, after in pairwise(values)]
        return cls(median(values), _DEVIATION_OF_NORMAL * median(differences))

    def deviations(self, value: float) -> float:
        """Signed distance from the median; infinite from one without spread."""
        distance = value - self.median
        return distance / self.deviation if self.deviation else math.copysign(math.inf, distance)

    def is_spike(self, value: float, rule: SpikeRule) -> bool:
        """Whether ``value`` is far enough above, by the rule's ratio and by its deviations."""
        return value > self.median * rule.ratio and value - self.median > self.deviation * rule.deviations


class Window(Section):
    """Values of a signal, oldest first. Plain finite data, so that a checkpoint can carry it."""

    values: tuple[float, ...] = ()
    """Of the latest readings that were no spikes."""
    aside: tuple[float, ...] = ()
    """Of the spikes since then, as long as they may turn out to be a new level."""

    def with_value(self, value: float, *, window_steps: int) -> "Window":
        """After a reading that was no spike."""
        return Window(values=(*self.values, value)[-window_steps:])

    def with_spike(self, value: float, *, level_steps: int) -> "Window":
        """After a spike: it moves nothing, unless it is the last of ``level_steps`` in a row, which then are the
        window."""
        aside = (*self.aside, value)
        return Window(values=aside) if len(aside) >= level_steps else Window(values=self.values, aside=aside)
