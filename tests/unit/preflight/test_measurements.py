"""How measured speeds are judged, and that real processes measure and are given up when they hang."""

from dataclasses import replace

import pytest
import torch

from glm130b.preflight.measurements import bandwidth_of, products_of, run_trials
from glm130b.preflight.trial import Outcome, operand

A100 = Outcome("NVIDIA A100-SXM4-80GB", 80 * 2**30, "bfloat16", flops=260e12, bus_bandwidth=230e9)


def test_a_healthy_node() -> None:
    first = replace(A100, clocks=((1380, 1410), (1395, 1410)))
    speed, load = products_of([first, A100])
    assert (speed.state, load.state) == ("ok", "ok")
    assert speed.value == "260 to 260 TFLOP/s in bfloat16, 83% of the peak at least (GPU 0)"
    assert load.value == "1380/1410, 1395/1410 MHz"
    assert bandwidth_of([A100] * 8).value == (
        "230.0 GB/s bus bandwidth over 8 processes, 77% of the 300 GB/s of a GPU's links"
    )


@pytest.mark.parametrize(
    ("flops", "states"),
    [(240e12, ["ok"]), (220e12, ["ok", "warning"]), (150e12, ["warning", "FAIL"]), (60e12, ["FAIL", "FAIL"])],
)
def test_a_slow_gpu_is_named(flops: float, states: list[str]) -> None:
    found = list(products_of([A100, A100, replace(A100, flops=flops), A100]))
    assert [it.state for it in found] == states
    assert all("GPU 2" in it.value for it in found)


def test_a_gpu_that_slows_down_under_load_fails() -> None:
    found = list(products_of([replace(A100, slowed=("GPU 5 slowed down by heat (hardware)",)), A100]))
    assert (found[-1].state, found[-1].value) == ("FAIL", "GPU 5 slowed down by heat (hardware)")


@pytest.mark.parametrize(("bandwidth", "state"), [(200e9, "ok"), (120e9, "warning"), (20e9, "FAIL")])
def test_bandwidth_is_that_of_the_slowest(bandwidth: float, state: str) -> None:
    assert bandwidth_of([A100, replace(A100, bus_bandwidth=bandwidth)]).state == state


@pytest.mark.parametrize("device", ["NVIDIA B200", "NVIDIA A100-PCIE-40GB"])
def test_unknown_cards_are_measured_and_not_judged(device: str) -> None:
    unknown = replace(A100, device=device, bus_bandwidth=1e9)
    assert [bandwidth_of([unknown] * 2).state, *(it.state for it in products_of([unknown] * 2))] == ["ok", "ok"]


def test_a_single_one_has_nothing_to_reduce() -> None:
    assert bandwidth_of([replace(A100, bus_bandwidth=None)]).state == "skipped"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_load_is_of_numbers_that_differ(dtype: torch.dtype) -> None:
    factor = operand(256, dtype, torch.device("cpu"))
    assert (factor.shape, factor.dtype) == ((256, 256), dtype)
    assert factor.float().std() == pytest.approx(1, abs=0.02)
    assert torch.isfinite(factor @ factor).all()


@pytest.mark.full
def test_two_processes_measure_this_machine() -> None:
    outcomes = run_trials(2, device="cpu", seconds=120)
    assert [outcome.device for outcome in outcomes] == ["cpu", "cpu"]
    assert all(outcome.flops > 1e8 and (outcome.bus_bandwidth or 0) > 1e6 for outcome in outcomes)


def test_what_hangs_is_given_up() -> None:
    with pytest.raises(TimeoutError, match=r"process 0, 1 of the measurement has not answered after 0 s"):
        run_trials(2, device="cpu", seconds=0.1)


def test_what_fails_tells_its_last_words() -> None:
    with pytest.raises(OSError, match=r"process 0 of the measurement: .*invalid choice: 'abacus'"):
        run_trials(1, device="abacus", seconds=60)
