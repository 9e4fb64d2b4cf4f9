"""What changes over a run, as pure functions of the samples consumed: a restart needs no state but the samples
and the guard's interventions.

A step begins at ``samples``, the rows consumed before it, and consumes a whole batch; the run ends with the first step
that reaches ``train_samples``. Steps count from 0 here.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from glm130b.config.errors import UserError
from glm130b.config.interventions import Intervention
from glm130b.config.sections import RunConfig
from glm130b.training.progress import Level, Progress


@dataclass(frozen=True)
class Schedules:
    """Batch size, learning rate and embedding gradient shrink of a run, and the way between steps and samples."""

    config: RunConfig
    interventions: tuple[Intervention, ...] = ()
    """The stability guard's, beside the user's of the config."""
    progress: Progress = field(default_factory=Progress)
    """Where the config begins to hold for the batch size; the steps before keep theirs."""

    def __post_init__(self) -> None:
        """Raises UserError for a run whose last step is passed over, after which nothing would be saved."""
        if not self.skips or not self.is_skipped(last := self.num_steps - 1):
            return
        if any(last in range(skip.from_step, skip.until_step) for skip in self.config.data.skip_steps):
            raise UserError(f"data.skip_steps: passes over step {last}, the run's last; end the range before it")
        end = next(skip.stop for skip in self.skips if last in skip)
        raise UserError(
            f"train_samples: {self.config.train_samples} ends the run with step {last}, which its stability guard has "
            f"passed over; write more than {self.samples_at(end)}"
        )

    def batch_size(self, samples: int) -> int:
        """Rows in the step that begins at ``samples``: ``start``, then one ``increment`` more at equal distances."""
        batch = self.config.batch
        if batch.ramp is None or samples >= batch.ramp.over_samples:
            return batch.global_size
        increments = (batch.global_size - batch.ramp.start) // batch.ramp.increment
        return batch.ramp.start + samples * increments // batch.ramp.over_samples * batch.ramp.increment

    def learning_rate(self, samples: int) -> float:
        """Learning rate of the step that begins at ``samples``: linear from 0, a cosine to ``minimum``, then constant.

        An update belongs to the samples consumed once it is made: a step is rated where it ends, so the first step
        already learns and a step that ends with the warm-up runs at ``peak``. Interventions multiply it, and may lead
        below ``minimum``.
        """
        reached = samples + self.batch_size(samples)
        factors = (each.learning_rate_factor_at(samples, reached=reached) for each in self._all_interventions)
        return self._undisturbed_rate(reached) * math.prod(factors)

    def _undisturbed_rate(self, reached: int) -> float:
        rate = self.config.optimizer.learning_rate
        if reached <= rate.warmup_samples:
            return rate.peak * reached / rate.warmup_samples
        if reached >= rate.decay_samples:
            return rate.minimum
        progress = (reached - rate.warmup_samples) / (rate.decay_samples - rate.warmup_samples)
        return rate.minimum + (rate.peak - rate.minimum) * (1 + math.cos(math.pi * progress)) / 2

    def embedding_gradient_alpha(self, samples: int) -> float:
        """Factor on the embedding gradient in the step that begins at ``samples``; interventions multiply it."""
        alpha = self.config.model.embedding_gradient_shrink.alpha.at(samples)
        return min(1.0, alpha * math.prod(each.alpha_factor_at(samples) for each in self._all_interventions))

    @cached_property
    def skips(self) -> tuple[range, ...]:
        """The steps that are passed over, in rising order and apart: ``data.skip_steps`` and the interventions'."""
        merged: list[range] = []
        guards = [each.skip for each in self._all_interventions if each.skip]
        for skip in sorted((*self.config.data.skip_steps, *guards), key=lambda skip: skip.from_step):
            if merged and skip.from_step <= merged[-1].stop:
                merged[-1] = range(merged[-1].start, max(merged[-1].stop, skip.until_step))
            else:
                merged.append(range(skip.from_step, skip.until_step))
        return tuple(merged)

    def is_skipped(self, step: int) -> bool:
        """Whether the data of ``step`` is passed over."""
        return any(step in skip for skip in self.skips)

    def skipped_before(self, step: int) -> Iterator[range]:
        """The samples of every stretch of steps before ``step`` that is passed over."""
        for skip in self.skips:
            first, last = min(skip.start, step), min(skip.stop, step)
            if first < last:
                yield range(self.samples_at(first), self.samples_at(last))

    def steps_from(self, samples: int) -> Iterator[range]:
        """The samples of every step that is trained on, from the one that begins at ``samples``; they go on behind the
        end of the run."""
        step = self.step_at(samples)
        while True:
            after = samples + self.batch_size(samples)
            if not self.is_skipped(step):
                yield range(samples, after)
            step, samples = step + 1, after

    @property
    def _all_interventions(self) -> tuple[Intervention, ...]:
        return (*self.config.interventions, *self.interventions)

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_until(self.config.train_samples)

    def samples_at(self, step: int) -> int:
        """Samples consumed before ``step``; the step consumes ``samples_at(step) ... samples_at(step + 1) - 1``."""
        level = self.levels[bisect_right(self.levels, step, key=lambda level: level.first_step) - 1]
        return level.first_sample + (step - level.first_step) * level.batch_size

    def step_at(self, samples: int) -> int:
        """The step that consumes the sample with index ``samples``."""
        level = self.levels[bisect_right(self.levels, samples, key=lambda level: level.first_sample) - 1]
        return level.first_step + (samples - level.first_sample) // level.batch_size

    def steps_until(self, samples: int) -> int:
        """Steps after which at least ``samples`` samples are consumed."""
        return self.step_at(samples - 1) + 1 if samples > 0 else 0

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The batch sizes in their order, whatever the run's length, from the first step that is known.

        Of a past that is not told, the config's own are taken where they lead to what is.
        """
        progress = self.progress
        levels = (*progress.levels, *self._levels_from(progress.step, progress.samples))
        first = levels[0]
        if first.first_step and (untold := Schedules(self.config)).samples_at(first.first_step) == first.first_sample:
            return (*(level for level in untold.levels if level.first_step < first.first_step), *levels)
        return levels

    def _levels_from(self, step: int, samples: int) -> Iterator[Level]:
        """The config's; a step larger than the distance of two increments skips a size."""
        ramp, global_size = self.config.batch.ramp, self.config.batch.global_size
        if ramp is not None:
            increments = (global_size - ramp.start) // ramp.increment
            for index in range(increments):
                size = ramp.start + index * ramp.increment
                end = -(-ramp.over_samples * (index + 1) // increments)
                steps = -(-(end - samples) // size)
                if steps > 0:
                    yield Level(step, samples, size)
                    step, samples = step + steps, samples + steps * size
        yield Level(step, samples, global_size)
