"""The counters of a run."""

from dataclasses import FrozenInstanceError

import pytest

from glm130b.training.progress import Progress


def test_a_step_counts_itself_and_its_rows() -> None:
    progress = Progress().after_step(4, applied=True).after_step(12, applied=True)
    assert progress == Progress(step=2, samples=16, skipped_updates=0)


def test_a_skipped_update_is_a_step_like_any_other() -> None:
    progress = Progress(step=3, samples=24, skipped_updates=1).after_step(8, applied=False)
    assert progress == Progress(step=4, samples=32, skipped_updates=2)


def test_counters_do_not_change_in_place() -> None:
    before = Progress()
    before.after_step(8, applied=False)
    assert before == Progress(0, 0, 0)
    with pytest.raises(FrozenInstanceError):
        before.step = 1  # type: ignore[misc]
