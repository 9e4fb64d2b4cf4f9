"""When to save: every ``checkpoint.every_steps`` and after the last step."""

from collections.abc import Sequence

from glm130b.checkpoint.store import CheckpointStore
from glm130b.data.mixing.era import Era
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress


class SaveCheckpoints:
    """A hook, the last in the order: what it saves has been evaluated and recorded."""

    def __init__(self, store: CheckpointStore, eras: Sequence[Era], *, every_steps: int, train_samples: int) -> None:
        """``eras`` is how the run is mixed, to be told by every checkpoint."""
        self._store = store
        self._eras = eras
        self._every_steps = every_steps
        self._train_samples = train_samples

    def before_training(self, progress: Progress) -> None:
        """What has been restored is saved already, and initial weights follow from the config."""

    def after_step(self, progress: Progress, record: Record) -> None:
        is_last = progress.samples >= self._train_samples
        if is_last or progress.step % self._every_steps == 0:
            self._store.save(progress, self._eras)
