"""How far a run has come. Its other state beside the tensors is the eras of its mixture and the guard's memory."""

from dataclasses import dataclass, replace


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

    def after_step(self, batch_size: int, *, applied: bool) -> "Progress":
        """The counters after one more step over ``batch_size`` rows."""
        return replace(self._beyond(batch_size), skipped_updates=self.skipped_updates + (not applied))

    def after_skipped_step(self, batch_size: int) -> "Progress":
        """The counters after a step whose ``batch_size`` rows were passed over."""
        return replace(self._beyond(batch_size), skipped_steps=self.skipped_steps + 1)

    def _beyond(self, batch_size: int) -> "Progress":
        return replace(self, step=self.step + 1, samples=self.samples + batch_size)
