"""One micro-batch's work: arithmetic by hand, and what each kind of it answers to."""

from dataclasses import replace
from pathlib import Path

import pytest

from glm130b.config.load import load_config
from glm130b.plan.cluster import Cluster, read_hardware
from glm130b.plan.kernels import gpu_kernels
from glm130b.plan.layer_time import LayerTime, Work, ring_seconds

GLM = Path(__file__).parents[3] / "configs" / "glm-130b.yaml"
A100 = read_hardware("a100-40g")
ENDLESS = replace(A100, accelerator=replace(A100.accelerator, memory_bandwidth=1e30))
"""Reading and writing cost nothing."""


def times(*overrides: str, cluster: Cluster = A100) -> LayerTime:
    config = load_config(GLM, overrides)
    return LayerTime(config, 24, cluster, gpu_kernels(config, cluster.accelerator))


def test_products_take_their_operations_over_what_is_reached() -> None:
    """Three passes of 2 operations for each weight and token; 1,812 million weights of a layer over 4 ranks."""
    weights = 12288 * (4 * 12288 + 3 * 32768)
    expected = 3 * 2 * 2048 * weights / 4 / (0.65 * 312e12)
    assert times(cluster=ENDLESS).layer.matrices == pytest.approx(expected)
    head = 3 * 2 * 2048 * 12288 * 150528 / 4 / (0.65 * 312e12)
    assert times(cluster=ENDLESS).head.matrices == pytest.approx(head)


def test_reading_makes_small_products_slower() -> None:
    def slowdown(*overrides: str) -> float:
        return times(*overrides).layer.matrices / times(*overrides, cluster=ENDLESS).layer.matrices

    narrow = ["model.hidden_size=768", "model.num_attention_heads=12", "model.ffn_hidden_size=2048"]
    assert 1 < slowdown() < 1.15 < slowdown(*narrow)
    assert slowdown("batch.micro_size=2", "batch.ramp=null") < slowdown()


def test_gradients_are_added_in_their_format() -> None:
    """fp16: two read, one written, 2 bytes each; into fp32: 2 read, 4 written, then 8 read and 4 written."""
    plain, cast = times().sums(10**9), times("precision.accumulate_gradients_in_fp32=true").sums(10**9)
    assert plain.total == plain.gradient_sums == pytest.approx(6e9 / A100.memory_bandwidth)
    assert cast.gradient_sums == pytest.approx(18e9 / A100.memory_bandwidth)


@pytest.mark.parametrize(("recompute", "passes"), [("none", 2), ("selective", 2), ("full", 3)])
def test_the_tensor_axis_reduces_in_every_pass_and_gathers_once_more(recompute: str, passes: int) -> None:
    """Two all-reduces a pass; with the sequence cut, what went into two products is gathered again."""
    plain, cut = (
        times(f"parallel.recompute={recompute}", f"parallel.sequence_parallel={word}") for word in ("false", "true")
    )
    reduced = plain.embedding.tensor_communication
    assert plain.layer.tensor_communication == pytest.approx(2 * passes * reduced)
    assert cut.layer.tensor_communication == pytest.approx((2 * passes + 1) * reduced)
    assert plain.head.tensor_communication == reduced
    for end in (cut.embedding, cut.head):
        assert end.tensor_communication == pytest.approx(1.5 * reduced)


def test_one_tensor_rank_gathers_nothing() -> None:
    alone = times("parallel.tensor=1", "parallel.sequence_parallel=true")
    assert alone.layer.tensor_communication == alone.head.tensor_communication == 0


def test_a_ring_passes_all_but_its_own_share() -> None:
    assert ring_seconds(A100, 1e9, size=1, stride=1, turns=2) == 0
    assert ring_seconds(A100, 8e9, size=8, stride=1, turns=2) == pytest.approx(7e9 / 240e9, rel=0.01)
    assert ring_seconds(A100, 8e9, size=8, stride=8, turns=2) == pytest.approx(7e9 / 20e9, rel=0.01)
    assert ring_seconds(A100, 0.0, size=8, stride=8, turns=2) > ring_seconds(A100, 0.0, size=8, stride=1, turns=2) > 0


def test_plain_kernels_read_more() -> None:
    assert times("kernels.pointwise=plain").layer.pointwise > 1.8 * times().layer.pointwise


def test_works_add_up() -> None:
    work = Work(matrices=1.0, recomputation=2.0)
    assert (work + work * 2).total == 9.0
    assert (work + work * 2).recomputation == 6.0
