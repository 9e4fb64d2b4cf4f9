"""Every voice hears what all ranks said for it, from one collective."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from glm130b.parallel.topology import Topology
from glm130b.training import roll_call
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress
from glm130b.training.roll_call import RollCall


class Says:
    def __init__(self, number: float) -> None:
        self.number = number
        self.heard: list[tuple[list[float], int]] = []

    def say(self) -> float:
        return self.number

    def hear(self, said: Tensor, progress: Progress) -> None:
        self.heard.append((said.tolist(), progress.step))


def test_each_voice_hears_its_own_numbers_by_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    collectives: list[list[float]] = []

    def three_ranks(numbers: Sequence[float], topology: Topology) -> Tensor:
        collectives.append(list(numbers))
        return torch.tensor([[number + 10 * rank for number in numbers] for rank in range(3)], dtype=torch.float64)

    monkeypatch.setattr(roll_call, "told_by_all", three_ranks)
    voices = [Says(1.0), Says(2.0)]
    hook = RollCall(voices, cast(Topology, None))
    hook.before_training(Progress(step=6))
    hook.after_step(Progress(step=7), cast(Record, cast(Any, None)))
    assert collectives == [[1.0, 2.0]]
    assert [voice.heard for voice in voices] == [[([1.0, 11.0, 21.0], 7)], [([2.0, 12.0, 22.0], 7)]]
