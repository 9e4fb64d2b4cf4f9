"""The loop: steps until the samples are consumed; everything else is a hook."""

from collections.abc import Sequence

from glm130b.training.hooks import Hook
from glm130b.training.progress import Progress
from glm130b.training.stepper import Stepper


def train(stepper: Stepper, progress: Progress, *, train_samples: int, hooks: Sequence[Hook]) -> Progress:
    """Train from ``progress`` until ``train_samples`` rows are consumed. Collective over the whole job."""
    for hook in hooks:
        hook.before_training(progress)
    while (progress := stepper.past_skipped_steps(progress)).samples < train_samples:
        progress, record = stepper.step(progress)
        for hook in hooks:
            hook.after_step(progress, record)
    return progress
