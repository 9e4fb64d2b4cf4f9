"""What happened to a run, sorted by what a reader wants to see of it."""

from enum import Enum

from glm130b.report.reading import Happening, RunHistory

_ORDINARY = {"checkpoint saved", "checkpoints kept"}
_SPIKES = {"loss", "gradient norm", "embedding gradient norm", "not finite", "overflow", "minimum scale"}
"""The guard's rules, whose names its events bear."""


class Kind(Enum):
    """A lane of the timeline, from top to bottom."""

    RESTART = "restart"
    ACTION = "guard acted"
    SPIKE = "spike"
    CHECKPOINT = "checkpoint"
    OTHER = "other"


def incidents(run: RunHistory) -> list[tuple[Kind, Happening]]:
    """The run's events, oldest first, but for those that belong to every day."""
    return [(kind_of(event), event) for event in run.events if event.name not in _ORDINARY]


def kind_of(event: Happening) -> Kind:
    if event.name in {"resume", "ended"}:
        return Kind.RESTART
    if event.name in {"rewound", "rewind failed"} or (event.name in _SPIKES and event.details.get("acted")):
        return Kind.ACTION
    if event.name in _SPIKES:
        return Kind.SPIKE
    return Kind.CHECKPOINT if "checkpoint" in event.name else Kind.OTHER


def restarts(run: RunHistory) -> int:
    """How often the run went on from a checkpoint of its own."""
    return sum(event.name == "resume" for event in run.events)
