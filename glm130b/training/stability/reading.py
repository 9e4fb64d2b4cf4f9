"""What is known of a step when its update is judged."""

import math
from dataclasses import dataclass

SIGNALS = ("loss", "gradient_norm", "embedding_gradient_norm")
"""Numbers of a reading that are judged against their past, each by the rule of its name."""


@dataclass(frozen=True)
class Reading:
    """Measured before the update, and the same on every rank, so that every rank judges alike without a word."""

    step: int
    """Counted from 0."""
    samples: int
    """Rows consumed before the step."""
    loss: float
    gradient_norm: float
    """Global, unscaled, before clipping; not finite when the gradient is not."""
    embedding_gradient_norm: float
    overflowed: bool
    """Whether the scaled gradient was not finite."""
    at_minimum_scale: bool
    """Whether fp16's loss scale cannot go lower."""

    def value(self, signal: str) -> float:
        """One of ``SIGNALS``."""
        return getattr(self, signal)

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradient are numbers that the weights may see."""
        return not self.overflowed and all(math.isfinite(self.value(signal)) for signal in SIGNALS)
