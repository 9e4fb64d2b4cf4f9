"""What is changed on a running run from a sample on: by its user in the config, or by the stability guard."""

from pydantic import Field

from glm130b.config.ramp import Ramp
from glm130b.config.section import Section


class SkipRange(Section):
    """Steps whose data is passed over: they count, and nothing is learned in them."""

    from_step: int = Field(ge=0)
    """First step passed over, counted from 0: one less than its number on the console."""
    steps: int = Field(ge=1)
    """Length of the range."""

    @property
    def until_step(self) -> int:
        """First step behind the range."""
        return self.from_step + self.steps


class Intervention(Section):
    """A change that holds from one sample on; those of earlier samples stay as they were.

    Factors multiply what the schedules and earlier interventions give, so several follow each other as GLM-130B's alpha
    of 1, 0.5 and 0.1 did.
    """

    from_samples: int = Field(ge=0)
    """First sample it holds for: a step that begins before it is left alone."""
    learning_rate_factor: float = Field(default=1.0, gt=0)
    """On the learning rate."""
    alpha_factor: float = Field(default=1.0, gt=0)
    """On the embedding gradient shrink's alpha, which never rises above 1."""
    over_samples: int = Field(default=0, ge=0)
    """Samples over which both factors move linearly from 1 to their values; 0 sets them at once."""
    rewarm_samples: int = Field(default=0, ge=0)
    """Samples over which the learning rate rises linearly from 0 again; 0 leaves it where it is."""
    skip: SkipRange | None = None
    """Steps that the stability guard passes over; a user names steps in ``data.skip_steps``."""
    reason: str = ""
    """Why, for the record."""

    def alpha_factor_at(self, samples: int) -> float:
        """Factor on alpha in the step that begins at ``samples``."""
        return self._move(1.0, self.alpha_factor, self.over_samples).at(samples)

    def learning_rate_factor_at(self, samples: int, *, reached: int) -> float:
        """Factor on the learning rate of the step over ``samples ... reached - 1``, which is rated where it ends."""
        if samples < self.from_samples:
            return 1.0
        lowered = self._move(1.0, self.learning_rate_factor, self.over_samples).at(reached)
        return lowered * self._move(0.0, 1.0, self.rewarm_samples).at(reached)

    def _move(self, start: float, end: float, over_samples: int) -> Ramp:
        return Ramp(start=start, end=end, from_samples=self.from_samples, over_samples=over_samples)
