"""How far a run has come. Everything else about a moment of the run follows from it and the config."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Progress:
    """Counters at the boundary between two steps."""

    step: int = 0
    """Steps taken, overflow-skipped ones included."""
    samples: int = 0
    """Rows consumed: the index of the next row, and all the state that the data has."""
    skipped_updates: int = 0
    """Steps whose update an fp16 overflow skipped."""

    def after_step(self, batch_size: int, *, applied: bool) -> "Progress":
        """The counters after one more step over ``batch_size`` rows."""
        return replace(
            self,
            step=self.step + 1,
            samples=self.samples + batch_size,
            skipped_updates=self.skipped_updates + (not applied),
        )
