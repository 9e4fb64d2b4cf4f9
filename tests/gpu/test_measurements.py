"""What is measured of a step on a GPU: its seconds hold all of it, and its norms make nobody wait."""

import pytest
import torch

from glm130b.environment import Launch
from glm130b.parallel.parameter_parts import squares
from glm130b.training.schedules import Schedules
from tests.harness.stage import joined
from tests.harness.synthetic import SyntheticRows, small_config
from tests.harness.training import loader, meter

pytestmark = pytest.mark.gpu


def test_the_seconds_of_a_step_cover_its_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is given work that takes it a moment, as the optimizer and the gathering of the weights do."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")  # a job of one: any free port
    config = small_config()
    with joined(Launch(rank=0, local_rank=0, world_size=1), config) as topology:
        stopwatch = meter(config, loader(SyntheticRows(), Schedules(config), topology), topology)
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        stopwatch.begin()
        began.record()
        torch.cuda._sleep(200_000_000)  # clock cycles
        ended.record()
        seconds = stopwatch.speed(batch_size=8)["seconds"]
        assert ended.query()
        assert seconds >= began.elapsed_time(ended) / 1000


def test_nobody_waits_for_sums_of_squares() -> None:
    tensors = [torch.randn(length, device="cuda") for length in (7, 2**16 + 5, 2**20)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = squares(tensors)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found, torch.stack([each.double().square().sum() for each in tensors]))
