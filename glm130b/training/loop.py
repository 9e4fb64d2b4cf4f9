"""The loop: steps until the samples are consumed, or until somebody wants something else; all else is a hook."""

from collections.abc import Callable, Sequence

from glm130b.training.hooks import Hook
from glm130b.training.progress import Progress
from glm130b.training.stepper import Stepper


def train(
    stepper: Stepper,
    progress: Progress,
    *,
    train_samples: int,
    hooks: Sequence[Hook],
    is_cut_short: Callable[[], bool] = lambda: False,
) -> Progress:
    """Train from ``progress`` until ``train_samples`` rows are consumed, or until ``is_cut_short`` after a step.
    Collective over the whole job, so the answer must be the same everywhere."""
    for hook in hooks:
        hook.before_training(progress)
    while (progress := stepper.past_skipped_steps(progress)).samples < train_samples:
        progress, record = stepper.step(progress)
        for hook in hooks:
            hook.after_step(progress, record)
        if is_cut_short():
            break
    return progress
