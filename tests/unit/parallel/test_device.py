"""The device of a process: its own GPU, or the CPU with the door open."""

import pytest
import torch

from glm130b.config.errors import UserError
from glm130b.environment import Launch
from glm130b.parallel.device import open_device
from tests.harness.pool import run_distributed


def test_the_gpu_of_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert open_device(local_rank=3) == torch.device("cuda", 3)
    assert chosen == [3]
    with pytest.raises(UserError, match="process 4 of this machine sees 4 GPUs"):
        open_device(local_rank=4)


def without_a_gpu(launch: Launch) -> tuple[torch.device, object]:
    return open_device(local_rank=1), torch.cuda.current_device()


def test_the_cpu_where_there_is_no_gpu() -> None:
    assert run_distributed(without_a_gpu, 1) == [(torch.device("cpu"), torch.device("cpu"))]
