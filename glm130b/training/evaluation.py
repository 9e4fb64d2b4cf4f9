"""Loss on held-out documents, per objective and source, always on the same rows."""

from collections.abc import Callable

from glm130b.config.sections import RunConfig
from glm130b.data.batches import Rows, micro_batches
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.parallel.pipeline import Pipeline
from glm130b.parallel.topology import Topology
from glm130b.training.metrics import Record
from glm130b.training.objective_loss import LossSums, forward_step, mean_losses
from glm130b.training.progress import Progress
from glm130b.training.sinks.recorder import Recorder


class Evaluation:
    """A hook: evaluates before the first step of a run, every ``evaluation.every_steps``, and
    after the last."""

    def __init__(
        self,
        config: RunConfig,
        *,
        rows: Rows,
        pipeline: Pipeline,
        topology: Topology,
        recorder: Recorder,
        enter_phase: Callable[[str], None] = lambda phase: None,
    ) -> None:
        self._config = config
        self._rows = rows
        self._losses = LossSums(config)
        self._pipeline = pipeline
        self._topology = topology
        self._recorder = recorder
        self._enter_phase = enter_phase

    def before_training(self, progress: Progress) -> None:
        if progress.step == 0:
            self._evaluate(progress)

    def after_step(self, progress: Progress, record: Record) -> None:
        is_last = progress.samples >= self._config.train_samples
        if is_last or progress.step % self._config.evaluation.every_steps == 0:
            self._evaluate(progress)

    def _evaluate(self, progress: Progress) -> None:
        self._enter_phase(f"evaluation after step {progress.step}")
        micro_size, data = self._config.batch.micro_size, self._topology.data
        samples = self._config.evaluation.samples
        reports = self._pipeline.evaluate(
            forward_step(self._topology.device, ShrinkFactors()),
            micro_batches(
                self._rows,
                first_sample=0,
                batch_size=samples,
                micro_size=micro_size,
                data_rank=data.rank,
                data_size=data.size,
            ),
            num_micro_batches=samples // (micro_size * data.size),
            micro_size=micro_size,
        )
        losses = mean_losses(reports, self._losses, self._topology)
        self._recorder.write(Record(kind="validation", step=progress.step, samples=progress.samples, values=losses))
