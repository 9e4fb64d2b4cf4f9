"""One training step: schedules -> batch -> forward and backward -> optimizer -> one metrics record."""

import time

from glm130b.config.sections import RunConfig
from glm130b.data.loader import Loader
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.parallel.pipeline import Pipeline
from glm130b.parallel.topology import Topology, seed_dropout
from glm130b.parallel.zero import ZeroEngine
from glm130b.training.metrics import Record
from glm130b.training.objective_loss import forward_step, mean_losses
from glm130b.training.progress import Progress
from glm130b.training.schedules import Schedules


class Stepper:
    """Takes steps. Holds no state of its own: what a step does is a function of the progress and the weights."""

    def __init__(
        self,
        config: RunConfig,
        *,
        loader: Loader,
        pipeline: Pipeline,
        engine: ZeroEngine,
        schedules: Schedules,
        topology: Topology,
    ) -> None:
        self._config = config
        self._loader = loader
        self._pipeline = pipeline
        self._engine = engine
        self._schedules = schedules
        self._topology = topology

    def past_skipped_steps(self, progress: Progress) -> Progress:
        """``progress`` moved over the steps that ``data.skip_steps`` passes over, if it stands before one."""
        while self._schedules.is_skipped(progress.step):
            progress = progress.after_skipped_step(self._schedules.batch_size(progress.samples))
        return progress

    def step(self, progress: Progress) -> tuple[Progress, Record]:
        """The step that begins at ``progress``. Collective over the whole job."""
        started, waited = time.perf_counter(), self._loader.seconds_waited
        samples = progress.samples
        batch_size = self._schedules.batch_size(samples)
        learning_rate = self._schedules.learning_rate(samples)
        alpha = self._schedules.embedding_gradient_alpha(samples)
        # Dropout masks depend on the first sample of the step, so a resumed run draws the same ones.
        seed_dropout(self._config.seed + samples, self._topology)

        reports = self._pipeline.train(
            forward_step(self._topology.device, self._shrink(alpha)),
            self._loader.micro_batches(range(samples, samples + batch_size)),
            num_micro_batches=batch_size // (self._config.batch.micro_size * self._topology.data.size),
            micro_size=self._config.batch.micro_size,
        )
        outcome = self._engine.step(learning_rate)
        after = progress.after_step(batch_size, applied=outcome.applied)
        losses = mean_losses(reports, self._topology)
        seconds = time.perf_counter() - started
        return after, Record(
            kind="train",
            step=after.step,
            samples=after.samples,
            values=losses
            | {
                "gradient_norm": outcome.gradient_norm,
                "learning_rate": learning_rate,
                "batch_size": batch_size,
                "shrink_alpha": alpha,
                "loss_scale": outcome.loss_scale,
                "skipped_updates": after.skipped_updates,
                "skipped_steps": after.skipped_steps,
                "seconds": seconds,
                "data_wait_seconds": self._loader.seconds_waited - waited,
                "tokens_per_second": batch_size * self._config.data.sequence_length / seconds,
            },
        )

    def _shrink(self, alpha: float) -> ShrinkFactors:
        sides = self._config.model.embedding_gradient_shrink
        return ShrinkFactors(
            input_side=alpha if sides.input_side else 1.0,
            logit_side=alpha if sides.logit_side else 1.0,
        )
