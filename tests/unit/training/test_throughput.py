"""Speeds against hand arithmetic, and against what is told of the GLM-130B run."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch

from glm130b.config.load import load_config
from glm130b.training.throughput import Throughput, peak_flops
from tests.harness.synthetic import small_config

CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_glm_130b_run() -> None:
    """4224 rows in 88.5 s on 768 A100: its log says 134 TFLOP/s with recomputation, the paper MFU 32.5 %, HFU 43.3 %.

    By hand: the matrices hold 12 x 12288^2 weights in each of 70 layers, and 150528 x 12288 in the vocabulary's. A row
    of 2048 tokens takes 6 operations a token and weight, and for attention as many as 70 x 2 x 2048 x 12288 weights
    would, 1.62 x 10^15 in all. Recomputation repeats a third of what is in the layers.
    """
    config = load_config(CONFIGS / "glm-130b.yaml", [])
    speed = Throughput(config, world_size=768, peak_flops=312e12).values(batch_size=4224, seconds=88.5)
    assert speed["samples_per_second"] == pytest.approx(47.73, abs=0.005)
    assert speed["tokens_per_second"] == pytest.approx(97_749, abs=0.5)
    layers, vocabulary = 70 * 12 * 12288**2 + 70 * 2 * 2048 * 12288, 150528 * 12288
    rows = 4224 / 88.5 / 768
    model, hardware = (6 * 2048 * (repeats * layers + vocabulary) * rows / 1e12 for repeats in (1, 4 / 3))
    assert speed["teraflops_per_gpu"] == pytest.approx(model, rel=1e-6)
    assert speed["mfu"] * 312 == pytest.approx(model, rel=1e-6)
    assert speed["hfu"] * 312 == pytest.approx(hardware, rel=1e-6)
    assert hardware == pytest.approx(134, abs=0.5)
    assert speed["mfu"] == pytest.approx(0.325, abs=0.002)
    assert speed["hfu"] == pytest.approx(0.433, abs=0.004)


def test_shares_of_the_peak_are_of_one_accelerator() -> None:
    one = Throughput(small_config(), world_size=1, peak_flops=1e12).values(batch_size=8, seconds=2.0)
    four = Throughput(small_config(), world_size=4, peak_flops=1e12).values(batch_size=8, seconds=2.0)
    assert four["tokens_per_second"] == one["tokens_per_second"] == 8 * 32 / 2
    assert four["mfu"] == one["mfu"] / 4
    assert one["mfu"] == one["hfu"] == one["teraflops_per_gpu"]  # nothing is computed twice


def test_without_a_known_peak_there_is_no_share_of_it() -> None:
    speed = Throughput(small_config(), world_size=1, peak_flops=None).values(batch_size=8, seconds=2.0)
    assert set(speed) == {"seconds", "samples_per_second", "tokens_per_second", "teraflops_per_gpu"}


def test_the_peak_is_the_config_s_or_that_of_a_known_gpu() -> None:
    half = small_config(precision={"dtype": "bf16"})
    told = small_config(logging={"peak_teraflops": 2.5})
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert peak_flops(half, cpu) is None
    assert peak_flops(told, cpu) == 2.5e12
    memory = SimpleNamespace(total_memory=42_000_000_000)
    with (
        patch.object(torch.cuda, "get_device_properties", return_value=memory),
        patch.object(torch.cuda, "get_device_name", return_value="NVIDIA A100-SXM4-40GB"),
    ):
        assert peak_flops(half, gpu) == 312e12
        assert peak_flops(small_config(), gpu) == 19.5e12  # fp32
        assert peak_flops(told, gpu) == 2.5e12
    with (
        patch.object(torch.cuda, "get_device_properties", return_value=memory),
        patch.object(torch.cuda, "get_device_name", return_value="Quadro of some kind"),
    ):
        assert peak_flops(half, gpu) is None
