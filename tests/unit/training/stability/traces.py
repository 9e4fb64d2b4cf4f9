"""Made-up runs with the statistics of real ones: a falling noisy loss, lognormal gradient norms with heavy tails."""

import math
import random
from collections.abc import Iterator
from dataclasses import replace

from glm130b.training.schedules import Schedules
from glm130b.training.stability.reading import Reading


def calm_run(schedules: Schedules, *, seed: int, noise: float = 0.01) -> Iterator[Reading]:
    """Readings of a run in which nothing goes wrong.

    The loss falls from 11 towards 3 with the step, fast at first, and has relative noise of ``noise`` at batch 256,
    inverse to the batch's square root, now and then three times as much (a batch of another source). Gradient norms
    fall in the warm-up, are lognormal of sigma 0.3 and correlated, and one in a hundred is drawn from a tail of twice
    the sigma.
    """
    rng = random.Random(seed)
    drift = 0.0
    for step in range(schedules.num_steps):
        samples = schedules.samples_at(step)
        batch = schedules.batch_size(samples)
        drift = 0.99 * drift + 0.01 * rng.gauss(0, 1)
        wide = noise * math.sqrt(256 / batch) * (3 if rng.random() < 0.02 else 1)
        loss = (3 + 8 * (1 + step / 200) ** -0.9) * (1 + wide * rng.gauss(0, 1) + 0.03 * drift)
        sigma = 0.6 if rng.random() < 0.01 else 0.3
        common = rng.gauss(0, 1)
        whole = (0.2 + 5 * math.exp(-step / 300)) * math.exp(sigma * common + drift)
        embedding = 0.1 * whole * math.exp(0.2 * rng.gauss(0, 1))
        yield Reading(step, samples, loss, whole, embedding, overflowed=False, at_minimum_scale=False)


def times(reading: Reading, *, loss: float = 1, gradient: float = 1, embedding: float = 1) -> Reading:
    """The reading with its signals multiplied."""
    return replace(
        reading,
        loss=reading.loss * loss,
        gradient_norm=reading.gradient_norm * gradient,
        embedding_gradient_norm=reading.embedding_gradient_norm * embedding,
    )
