"""Whether one reading breaks a rule: spikes against the window of their signal, faults by themselves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from glm130b.config.stability import SpikeRule
from glm130b.training.stability.reading import SIGNALS, Reading
from glm130b.training.stability.window import Level, Window


@dataclass(frozen=True)
class Trial:
    """The outcome for one rule."""

    broken: bool | None
    """None when the reading cannot tell, which neither lengthens nor ends a row."""
    seen: str = ""
    """What was seen and against what, if broken."""
    details: Mapping[str, float] = field(default_factory=dict)
    """The finite numbers of it."""


def try_spike(signal: str, value: float, *, rule: SpikeRule, window: Window, quiet_steps: int) -> Trial:
    """Whether ``value`` is a spike; before ``quiet_steps`` values are in the window nothing is."""
    if not math.isfinite(value):
        return Trial(None)
    if len(window.values) < quiet_steps:
        return Trial(False)
    level = Level.of(window.values)
    if not level.is_spike(value, rule):
        return Trial(False)
    deviations = level.deviations(value)
    seen = (
        f"{signal} {value:.6g} is {deviations:.1f} deviations above the median {level.median:.6g} of "
        f"{len(window.values)} steps"
    )
    details = {"value": value, "median": level.median, "deviations": deviations}
    return Trial(True, seen, {name: number for name, number in details.items() if math.isfinite(number)})


def try_faults(reading: Reading, *, is_fp16: bool) -> dict[str, Trial]:
    """By rule. A scaled gradient that overflows is ordinary in fp16, as long as the loss itself is finite."""
    overflowed = is_fp16 and reading.overflowed
    ordinary = overflowed and math.isfinite(reading.loss)
    numbers = ", ".join(f"{signal} {reading.value(signal):g}" for signal in SIGNALS)
    return {
        "not_finite": Trial(not reading.is_finite and not ordinary, f"{numbers}: not finite"),
        "overflow": Trial(overflowed, "the scaled gradient overflowed"),
        "minimum_scale": Trial(
            overflowed and reading.at_minimum_scale, "the gradient overflowed at the smallest loss scale"
        ),
    }
