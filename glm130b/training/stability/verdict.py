"""What the guard says of a step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glm130b.config.interventions import Intervention
from glm130b.training.stability.memory import Memory


@dataclass(frozen=True)
class Finding:
    """One rule that a step broke."""

    rule: str
    """Its key in the section ``stability``."""
    message: str
    """What was seen, against what, how often in a row, and what is done about it."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """The same as plain data; numbers that are not finite are left out. ``acted``: more was done than to warn."""


@dataclass(frozen=True)
class Rewind:
    """Go on from the newest checkpoint that has no step from ``before_step`` on."""

    before_step: int


@dataclass(frozen=True)
class Verdict:
    """What follows from one reading."""

    findings: tuple[Finding, ...]
    permits_update: bool
    interventions: tuple[Intervention, ...]
    """Decided at this step: none or one. ``memory.interventions`` has all."""
    rewind: Rewind | None
    stop: bool
    memory: Memory
    """For the next reading, this one's interventions included."""
