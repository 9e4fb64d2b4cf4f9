"""The roll call: after every step each process tells all others one number for every voice, in one small collective.

Whatever must be decided alike on every process, though only one of them knows of it (a signal, a failed write, a slow
chip), is a voice. What a voice holds afterwards must follow from what it heard alone: then it is the same everywhere.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from glm130b.parallel.agreement import told_by_all
from glm130b.parallel.topology import Topology
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress


class Voice(Protocol):
    """Says one number on every process after each step, and hears what all of them said."""

    def say(self) -> float: ...

    def hear(self, said: Tensor, progress: Progress) -> None:
        """``said`` is float64 [world], by rank, on the CPU; ``progress`` stands behind the step."""


class RollCall:
    """Hook: gathers what all voices say, and lets every voice hear it."""

    def __init__(self, voices: Sequence[Voice], topology: Topology) -> None:
        """``voices`` stand in the same order on every process."""
        self._voices = tuple(voices)
        self._topology = topology

    def before_training(self, progress: Progress) -> None:
        """Nobody has anything to say yet."""

    def after_step(self, progress: Progress, record: Record) -> None:
        """Collective over the whole job."""
        said_WV = told_by_all([voice.say() for voice in self._voices], self._topology)
        for voice, said_W in zip(self._voices, said_WV.unbind(dim=1), strict=True):
            voice.hear(said_W, progress)
