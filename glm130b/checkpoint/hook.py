"""When to save: every ``checkpoint.every_steps`` and at the end."""

from glm130b.checkpoint.store import CheckpointStore
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress


class SaveCheckpoints:
    """A hook, the last in the order: what it saves has been evaluated and recorded."""

    def __init__(self, store: CheckpointStore, *, every_steps: int) -> None:
        self._store = store
        self._every_steps = every_steps
        self._saved_step = -1

    def before_training(self, progress: Progress) -> None:
        self._saved_step = progress.step

    def after_step(self, progress: Progress, record: Record) -> None:
        if progress.step % self._every_steps == 0:
            self._save(progress)

    def after_training(self, progress: Progress) -> None:
        if self._saved_step != progress.step:
            self._save(progress)

    def _save(self, progress: Progress) -> None:
        self._store.save(progress)
        self._saved_step = progress.step
