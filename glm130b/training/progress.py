"""How far a run has come. Its other state beside the tensors is the eras of its mixture and the guard's memory."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple


class Level(NamedTuple):
    """Consecutive steps of one batch size."""

    first_step: int
    first_sample: int
    batch_size: int


@dataclass(frozen=True)
class Progress:
    """Counters at the boundary between two steps."""

    step: int = 0
    """Steps taken or passed over, overflow-skipped ones included."""
    samples: int = 0
    """Rows consumed: the index of the next row."""
    skipped_updates: int = 0
    """Steps whose update was skipped: its gradient or loss was not finite, or the stability guard forbade it."""
    skipped_steps: int = 0
    """Steps that were passed over (``data.skip_steps``, or the stability guard)."""
    overflows: int = 0
    """Those of the skipped updates whose gradient was not finite."""
    clipped_updates: int = 0
    """Updates whose gradient was clipped."""
    unclipped_updates: int = 0
    """Updates whose gradient was not. A checkpoint from before these three were counted begins with 0 of each."""
    levels: tuple[Level, ...] = field(default=(), compare=False)
    """The batch sizes that led here, in their order; one from before they were kept begins with none of its past."""

    @property
    def applied_updates(self) -> int:
        """Steps that changed the weights, as far back as that was counted."""
        return self.clipped_updates + self.unclipped_updates

    @property
    def clip_share(self) -> float | None:
        """Share of them whose gradient was clipped; None before the first."""
        return self.clipped_updates / self.applied_updates if self.applied_updates else None

    def after_step(
        self, batch_size: int, *, applied: bool, overflowed: bool = False, clipped: bool = False
    ) -> "Progress":
        """The counters after one more step over ``batch_size`` rows; ``clipped`` counts if its update was applied."""
        return replace(
            self._beyond(batch_size),
            skipped_updates=self.skipped_updates + (not applied),
            overflows=self.overflows + overflowed,
            clipped_updates=self.clipped_updates + (applied and clipped),
            unclipped_updates=self.unclipped_updates + (applied and not clipped),
        )

    def after_skipped_step(self, batch_size: int) -> "Progress":
        """The counters after a step whose ``batch_size`` rows were passed over."""
        return replace(self._beyond(batch_size), skipped_steps=self.skipped_steps + 1)

    def _beyond(self, batch_size: int) -> "Progress":
        levels = self.levels
        if not levels or levels[-1].batch_size != batch_size:
            levels = (*levels, Level(self.step, self.samples, batch_size))
        return replace(self, step=self.step + 1, samples=self.samples + batch_size, levels=levels)
