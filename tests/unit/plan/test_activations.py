"""What differs on a GPU from what ``tests/numerics/test_plan_memory.py`` measures on the CPU, counted by hand."""

from pathlib import Path

import pytest

from glm130b.config.load import load_config
from glm130b.plan.activations import Activations
from glm130b.plan.kernels import AssumedKernels, cpu_kernels

GLM = Path(__file__).parents[3] / "configs" / "glm-130b.yaml"
T, H, Q, F = 2048, 12288, 3072, 8192
"""One row; of GLM-130B's widths a quarter on each tensor rank."""
ONE_SEGMENT = ["objective.samples_per_row=1"]
FLASH = AssumedKernels(attention="flash_attn", fused_pointwise=True, on_gpu=True)


def test_a_layer_of_glm_130b_tensor_by_tensor() -> None:
    """In fp16: four hidden states, two masks, two norms' statistics in fp32; query, key and value as projected, query
    and key turned, output of the calls and put together, the sums' logarithms; the FFN's input twice as wide and its
    product."""
    layer = Activations(load_config(GLM, ONE_SEGMENT), FLASH).layer
    around = 4 * 2 * T * H + 2 * T * H + 2 * 2 * T * 4
    attention = 2 * T * Q * (3 + 2 + 2) + 4 * T * 24
    ffn = 2 * T * F * (2 + 1)
    assert layer.kept("none") == around + attention + ffn
    assert layer.kept("full") == 2 * T * H
    assert layer.kept("selective") == around + 2 * T * Q * (3 + 1) + ffn


def test_plain_kernels_keep_two_more_of_the_ffn() -> None:
    plain = AssumedKernels(attention="flash_attn", fused_pointwise=False, on_gpu=True)
    config = load_config(GLM, ONE_SEGMENT)
    more = Activations(config, plain).layer.kept("none") - Activations(config, FLASH).layer.kept("none")
    assert more == 2 * 2 * T * F


def test_packed_rows_copy_keys_and_values_of_contexts_for_flash_kernels_only() -> None:
    one, packed = (load_config(GLM, words) for words in (ONE_SEGMENT, []))
    assert Activations(packed, FLASH).layer.kept("none") - Activations(one, FLASH).layer.kept("none") == 4 * T * Q
    sdpa = AssumedKernels(attention="sdpa", fused_pointwise=True, on_gpu=True)
    assert Activations(packed, sdpa).layer == Activations(one, sdpa).layer


@pytest.mark.parametrize(("positions", "grows"), [("rope", False), ("alibi", True)])
def test_no_scores_but_alibis_biases(positions: str, grows: bool) -> None:
    """A row twice as long keeps twice as much, or with ALiBi its square."""
    sdpa = AssumedKernels(attention="sdpa", fused_pointwise=True, on_gpu=True)
    words = [f"model.positions={positions}", "model.attention_dropout=0"]
    short, long = (
        Activations(load_config(GLM, [*words, f"data.sequence_length={length}"]), sdpa).layer.kept("none")
        for length in (2048, 4096)
    )
    assert (long > 2 * short) == grows


def test_the_cpu_keeps_a_mask_and_whole_dropouts() -> None:
    config = load_config(GLM, ONE_SEGMENT)
    cpu, gpu = (
        Activations(config, kernels).layer.kept("none")
        for kernels in (cpu_kernels(config), AssumedKernels(attention="sdpa", fused_pointwise=False, on_gpu=True))
    )
    assert cpu - gpu == 2 * T * T + 2 * T * H - 2 * 2 * T * 2
