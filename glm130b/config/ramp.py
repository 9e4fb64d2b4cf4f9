"""A number that may change over the samples consumed: constant, or linear between two values."""

from typing import Any

from pydantic import Field, model_validator

from glm130b.config.section import Section


class Ramp(Section):
    """Linear from ``start`` to ``end`` over ``over_samples``, beginning ``from_samples`` into the run.

    A plain number in YAML is a constant. ``at`` is a pure function of the samples consumed, so a
    restart in the middle of a ramp needs no state.

    >>> ramp = Ramp(start=0.1, end=1.0, from_samples=100, over_samples=90)
    >>> ramp.at(0), ramp.at(145), ramp.at(10**9)
    (0.1, 0.55, 1.0)
    """

    start: float
    """Value up to and including ``from_samples``."""
    end: float
    """Value from ``from_samples + over_samples`` on."""
    from_samples: int = Field(default=0, ge=0)
    """First sample of the ramp."""
    over_samples: int = Field(default=0, ge=0)
    """Length of the ramp in samples; 0 is a step from ``start`` to ``end`` at ``from_samples``."""

    @model_validator(mode="before")
    @classmethod
    def _constant_from_number(cls, value: Any) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return {"start": float(value), "end": float(value)}
        return value

    def at(self, samples: int) -> float:
        """Value for the sample with index ``samples``."""
        if samples < self.from_samples:
            return self.start
        if samples >= self.from_samples + self.over_samples:
            return self.end
        return self.start + (self.end - self.start) * (samples - self.from_samples) / self.over_samples

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value ever taken."""
        return min(self.start, self.end), max(self.start, self.end)
