"""One training step: schedules -> batch -> forward and backward -> verdict -> optimizer -> one metrics record."""

from collections.abc import Callable, Mapping

from glm130b.config.sections import RunConfig
from glm130b.data.loader import Loader
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.parallel.pipeline import Pipeline
from glm130b.parallel.topology import Topology, seed_dropout
from glm130b.parallel.update import NOT_FINITE, GradientNorms
from glm130b.parallel.zero import StepOutcome, ZeroEngine
from glm130b.training.meter import Meter
from glm130b.training.metrics import Record, is_due
from glm130b.training.objective_loss import forward_step
from glm130b.training.progress import Progress
from glm130b.training.schedules import Schedules
from glm130b.training.stability.reading import Reading
from glm130b.training.stability.watch import Watch


class Stepper:
    """Takes steps. What one does is a function of the progress, the weights, and what the guard remembers."""

    def __init__(
        self,
        config: RunConfig,
        *,
        loader: Loader,
        pipeline: Pipeline,
        engine: ZeroEngine,
        schedules: Schedules,
        watch: Watch,
        topology: Topology,
        meter: Meter,
        enter_phase: Callable[[str], None] = lambda phase: None,
    ) -> None:
        """``enter_phase`` is told what the process is about to do, for whoever watches it."""
        self._config = config
        self._loader = loader
        self._pipeline = pipeline
        self._engine = engine
        self._schedules = schedules
        self._watch = watch
        self._topology = topology
        self._meter = meter
        self._enter_phase = enter_phase

    def past_skipped_steps(self, progress: Progress) -> Progress:
        """``progress`` moved over the steps that are passed over, if it stands before one."""
        while self._schedules.is_skipped(progress.step):
            progress = progress.after_skipped_step(self._schedules.batch_size(progress.samples))
        return progress

    def step(self, progress: Progress) -> tuple[Progress, Record]:
        """The step that begins at ``progress``. Collective over the whole job."""
        self._meter.begin()
        samples = progress.samples
        batch_size = self._schedules.batch_size(samples)
        learning_rate = self._schedules.learning_rate(samples)
        alpha = self._schedules.embedding_gradient_alpha(samples)
        self._enter_phase(f"forward and backward of step {progress.step + 1}")
        # Dropout masks depend on the first sample of the step, so a resumed run draws the same ones.
        seed_dropout(self._config.seed + samples, self._topology)

        reports = self._pipeline.train(
            forward_step(self._topology.device, self._shrink(alpha)),
            self._loader.micro_batches(range(samples, samples + batch_size)),
            num_micro_batches=batch_size // (self._config.batch.micro_size * self._topology.data.size),
            micro_size=self._config.batch.micro_size,
        )
        measured = self._meter.after_backward(reports)
        self._enter_phase(f"update of step {progress.step + 1}")
        outcome = self._update(progress, measured.losses["loss"], learning_rate)
        after = progress.after_step(
            batch_size,
            applied=outcome.applied,
            overflowed=outcome.overflowed,
            clipped=outcome.gradient_norm > self._config.optimizer.clip_gradient_norm,
        )
        self._enter_phase(f"what follows step {after.step}")
        scheduled = {"learning_rate": learning_rate, "batch_size": batch_size, "shrink_alpha": alpha}
        values = {**measured.losses, **_of_the_update(outcome), **scheduled, **_counted(after), **measured.others}
        record = Record(
            kind="train",
            step=after.step,
            samples=after.samples,
            values=values | self._meter.speed(batch_size),
            labels=measured.labels,
        )
        every_steps = self._config.logging.layers_every_steps
        return after, record if is_due(after.step, every_steps) else record.without_layers()

    def _update(self, progress: Progress, loss: float, learning_rate: float) -> StepOutcome:
        """The optimizer's step, if the stability guard permits it."""

        at_minimum_scale = self._engine.at_minimum_scale  # afterwards it is the next step's

        def permits(norms: GradientNorms, *, overflowed: bool = False) -> bool:
            reading = Reading(
                step=progress.step,
                samples=progress.samples,
                loss=loss,
                gradient_norm=norms.whole,
                embedding_gradient_norm=norms.embedding,
                overflowed=overflowed,
                at_minimum_scale=at_minimum_scale,
            )
            return self._watch.permits(reading)

        read_weights = is_due(progress.step + 1, self._config.logging.weights_every_steps)
        outcome = self._engine.step(learning_rate, permit=permits, read_weights=read_weights)
        if outcome.overflowed:  # then nobody was asked, and nothing was changed
            permits(NOT_FINITE, overflowed=True)
        return outcome

    def _shrink(self, alpha: float) -> ShrinkFactors:
        sides = self._config.model.embedding_gradient_shrink
        return ShrinkFactors(
            input_side=alpha if sides.input_side else 1.0,
            logit_side=alpha if sides.logit_side else 1.0,
        )


def _of_the_update(outcome: StepOutcome) -> Mapping[str, float]:
    return {
        "gradient_norm": outcome.gradient_norm,
        "embedding_gradient_norm": outcome.embedding_gradient_norm,
        "loss_scale": outcome.loss_scale,
        **outcome.statistics,
    }


def _counted(progress: Progress) -> Mapping[str, float]:
    """How often so far."""
    clip_share = progress.clip_share
    return {
        "overflows": progress.overflows,
        "skipped_updates": progress.skipped_updates,
        "skipped_steps": progress.skipped_steps,
        **({} if clip_share is None else {"clip_share": clip_share}),
    }
