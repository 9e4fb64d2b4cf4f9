"""What a process has needed."""

import numpy as np
import torch

from glm130b.environment import Launch
from glm130b.training.memory_use import MemoryUse
from tests.harness.pool import run_distributed


def peaks(launch: Launch) -> list[tuple[float, ...]]:
    """Before a quarter of a GiB is filled, while it is held, and after it was given back."""
    memory = MemoryUse(torch.device("cpu"))
    assert memory.names == ("memory_resident_gib",)
    found = [memory.read()]
    filled = np.ones(2**28, np.uint8)
    found.append(memory.read())
    del filled
    return [*found, memory.read()]


def test_a_peak_stays_when_the_memory_is_given_back() -> None:
    ((before,), (held,), (after,)) = run_distributed(peaks, 1)[0]
    assert 0.2 < held - before < 0.3
    assert abs(after - held) < 0.01  # the kernel counts in batches of pages
