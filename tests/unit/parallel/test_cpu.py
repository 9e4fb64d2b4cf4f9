"""The door to the CPU: shut where there is a GPU, and harmless to open twice."""

from typing import Any

import pytest
import torch

from glm130b.environment import Launch
from glm130b.parallel import cpu
from tests.harness.pool import run_distributed


def test_it_stays_shut_on_a_machine_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = (torch.cuda.current_device, torch.cuda.get_rng_state, cpu.schedules.torch, torch.get_num_threads())
    with pytest.raises(RuntimeError, match="on a machine with a GPU"):
        cpu.open_cpu_door()
    assert before == (torch.cuda.current_device, torch.cuda.get_rng_state, cpu.schedules.torch, torch.get_num_threads())


def behind_the_door(launch: Launch, times: int) -> dict[str, Any]:
    """What the libraries find after the door was opened so often."""
    for _ in range(times):
        cpu.open_cpu_door(num_threads=1)
    torch.cuda.manual_seed(3)
    state = torch.cuda.get_rng_state()
    first = torch.rand(4)
    torch.cuda.set_rng_state(state)
    torch.cuda.synchronize()
    return {
        "device": torch.cuda.current_device(),
        "zeros": cpu.schedules.torch.zeros(2, 3, device="cuda", dtype=torch.int32),
        "tensor": cpu.schedules.torch.tensor is torch.tensor,
        "replayed": torch.equal(first, torch.rand(4)),
        "megatron": torch.equal(cpu.megatron_random._get_cuda_rng_state(), torch.get_rng_state()),
        "fp16": cpu.get_accelerator().is_fp16_supported(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.is_available(),
    }


@pytest.mark.parametrize("times", [1, 2])
def test_cuda_means_the_cpu(times: int) -> None:
    (found,) = run_distributed(behind_the_door, 1, times)
    zeros = found.pop("zeros")
    assert torch.equal(zeros, torch.zeros(2, 3, dtype=torch.int32))
    assert zeros.device.type == "cpu"
    assert found == {
        "device": torch.device("cpu"),
        "tensor": True,
        "replayed": True,
        "megatron": True,
        "fp16": True,
        "threads": 1,
        "cuda": False,
    }
