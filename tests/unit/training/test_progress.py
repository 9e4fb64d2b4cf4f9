"""The counters of a run."""

from dataclasses import FrozenInstanceError

import pytest

from glm130b.training.progress import Progress


def test_a_step_counts_itself_and_its_rows() -> None:
    progress = Progress().after_step(4, applied=True).after_step(12, applied=True)
    assert progress == Progress(step=2, samples=16, unclipped_updates=2)


def test_a_skipped_update_is_a_step_like_any_other() -> None:
    progress = Progress(step=3, samples=24, skipped_updates=1).after_step(8, applied=False)
    assert progress == Progress(step=4, samples=32, skipped_updates=2)


def test_an_overflow_is_a_skipped_update_and_clips_nothing() -> None:
    progress = Progress(step=5, samples=40, skipped_updates=1, skipped_steps=2, unclipped_updates=2)
    assert progress.applied_updates == 2
    progress = progress.after_step(8, applied=False, overflowed=True, clipped=True)
    assert (progress.skipped_updates, progress.overflows, progress.clipped_updates) == (2, 1, 0)
    progress = progress.after_step(8, applied=True, clipped=True).after_step(8, applied=True)
    assert (progress.applied_updates, progress.overflows, progress.clipped_updates) == (4, 1, 1)


def test_clips_are_shared_out_over_the_updates_in_which_they_were_counted() -> None:
    """A checkpoint of an earlier version knows its steps and no clips."""
    progress = Progress(step=1000, samples=8000)
    assert progress.after_step(8, applied=False, clipped=True).clip_share is None
    for clipped in (True, False, True, True):
        progress = progress.after_step(8, applied=True, clipped=clipped)
    assert progress.clip_share == 0.75


def test_it_keeps_the_batch_sizes_that_led_here() -> None:
    """Those of steps that were passed over, too; a rewind takes them back with the rest."""
    before = Progress().after_step(4, applied=True).after_skipped_step(4)
    changed = before.after_step(8, applied=False).after_step(8, applied=True)
    assert before.levels == ((0, 0, 4),)
    assert changed.levels == ((0, 0, 4), (2, 8, 8))
    assert Progress(step=1000, samples=8000).after_skipped_step(8).levels == ((1000, 8000, 8),)


def test_counters_do_not_change_in_place() -> None:
    before = Progress()
    before.after_step(8, applied=False)
    assert before == Progress(0, 0, 0)
    with pytest.raises(FrozenInstanceError):
        before.step = 1  # type: ignore[misc]
