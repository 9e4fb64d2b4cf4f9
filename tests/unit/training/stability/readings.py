"""Readings made by hand, and a guard that they are handed to one by one."""

import math
from collections.abc import Sequence
from pathlib import Path

from glm130b.config.load import load_config
from glm130b.training.schedules import Schedules
from glm130b.training.stability.guard import Guard
from glm130b.training.stability.memory import Memory
from glm130b.training.stability.reading import Reading
from glm130b.training.stability.verdict import Verdict

RUN = Path(__file__).parents[2] / "run.yaml"
BATCH = 10
QUIET = 16
"""Steps before anything is judged, in the runs of ``schedules``."""


def schedules(*overrides: str, steps: int = 400) -> Schedules:
    """A run of ``steps`` steps of ten rows; rules judge after 16 steps, and nothing pauses."""
    plain = ["parallel.data=1", "batch.micro_size=1", "evaluation.samples=10", "checkpoint.keep_last=null"]
    batch = [f"batch.global_size={BATCH}", "batch.ramp=null", f"train_samples={BATCH * steps}"]
    guard = [f"stability.quiet_steps={QUIET}", "stability.window_steps=32", "stability.pause_steps=0"]
    return Schedules(load_config(RUN, [*plain, *batch, *guard, *overrides]))


def guarding(*overrides: str, memory: Memory | None = None, steps: int = 400) -> Guard:
    run = schedules(*overrides, steps=steps)
    return Guard(run.config.stability, memory, schedules=run)


def calm(step: int, **changes: float) -> Reading:
    """A step like any other: every signal swings a little around 1."""
    value = 1 + 0.01 * math.sin(step)
    signals = {"loss": value, "gradient_norm": value, "embedding_gradient_norm": value} | changes
    return Reading(step, BATCH * step, **signals, overflowed=False, at_minimum_scale=False)


def overflow(step: int, *, at_minimum_scale: bool = False, loss: float = 1.0) -> Reading:
    return Reading(step, BATCH * step, loss, math.inf, math.inf, overflowed=True, at_minimum_scale=at_minimum_scale)


def verdicts(guard: Guard, readings: Sequence[Reading]) -> list[Verdict]:
    """Of all readings, each remembered."""
    given = []
    for reading in readings:
        given.append(guard.judge(reading))
        guard.remember(given[-1])
    return given


def settled(*overrides: str, steps: int = 400) -> Guard:
    """A guard with quiet windows, which judges step 32 next."""
    guard = guarding(*overrides, steps=steps)
    assert not any(verdict.findings for verdict in verdicts(guard, [calm(step) for step in range(32)]))
    return guard
