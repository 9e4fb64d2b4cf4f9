"""When a checkpoint is saved."""

from typing import Any

import pytest

from glm130b.checkpoint.hook import SaveCheckpoints
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress


class Store:
    """Remembers the steps it was asked to save."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def save(self, progress: Progress, eras: tuple[str, ...]) -> None:
        assert eras == ("first", "second")
        self.steps.append(progress.step)


@pytest.mark.parametrize(
    ("start", "end", "saved"),
    [
        (0, 7, [3, 6, 7]),
        (0, 6, [3, 6]),  # the last step is saved once
        (0, 2, [2]),
        (6, 8, [8]),  # not again what was just loaded
        (4, 6, [6]),
        (6, 6, []),
    ],
)
def test_every_n_steps_and_once_at_the_end(start: int, end: int, saved: list[int]) -> None:
    store: Any = Store()
    eras: Any = ("first", "second")
    hook = SaveCheckpoints(store, eras, every_steps=3, train_samples=end)
    hook.before_training(Progress(step=start))
    for step in range(start + 1, end + 1):
        hook.after_step(Progress(step=step, samples=step), Record(kind="train", step=step, samples=step, values={}))
    assert store.steps == saved
