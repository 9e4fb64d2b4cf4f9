"""From step times to the end of a run: the batch ramp's steps counted one by one, days and dollars."""

from collections.abc import Iterator
from dataclasses import dataclass

from glm130b.config import derived
from glm130b.plan.step_time import StepModel
from glm130b.training.schedules import Schedules

_HOUR, _DAY = 3600, 86400


@dataclass(frozen=True)
class Cost:
    """A whole run on a cluster, from its first step to its last without a break."""

    steps: int
    samples: int
    tokens: int
    seconds: float
    gpu_hours: float
    dollars: float | None
    """None without a price."""

    @property
    def days(self) -> float:
        return self.seconds / _DAY


def cost(model: StepModel) -> Cost:
    """What all steps of the run take; checkpoints, evaluations, restarts and skipped steps are not counted."""
    levels = list(batch_levels(Schedules(model.config)))
    samples = sum(size * steps for size, steps in levels)
    seconds = sum(model.step(size).total * steps for size, steps in levels)
    price = model.cluster.dollars_per_hour
    gpu_hours = seconds / _HOUR * model.num_gpus
    return Cost(
        steps=sum(steps for _, steps in levels),
        samples=samples,
        tokens=derived.tokens_per_step(model.config, samples),
        seconds=seconds,
        gpu_hours=gpu_hours,
        dollars=None if price is None else gpu_hours * price,
    )


def batch_levels(schedules: Schedules) -> Iterator[tuple[int, int]]:
    """(batch size, steps of it) in the order of the run; sizes only rise."""
    ends = [*(level.first_step for level in schedules.levels[1:]), schedules.num_steps]
    for level, end in zip(schedules.levels, ends, strict=True):
        if (steps := min(end, schedules.num_steps) - level.first_step) > 0:  # a run may end on its way up
            yield level.batch_size, steps
