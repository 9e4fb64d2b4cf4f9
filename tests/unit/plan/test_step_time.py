"""Step times: two published ones, and how they answer to the layout."""

from pathlib import Path

import pytest

from glm130b.config import derived
from glm130b.config.load import load_config
from glm130b.plan.cluster import read_hardware
from glm130b.plan.kernels import gpu_kernels
from glm130b.plan.step_time import StepModel

GLM = Path(__file__).parents[3] / "configs" / "glm-130b.yaml"


def model_of(*overrides: str, hardware: str = "a100-40g", gpus_per_node: int = 8) -> StepModel:
    config = load_config(GLM, overrides)
    assert isinstance(config.parallel.data, int)
    cluster = read_hardware(hardware, gpus_per_node=gpus_per_node)
    return StepModel(config, config.parallel.data, cluster, gpu_kernels(config, cluster.accelerator))


@pytest.mark.parametrize(("batch_size", "published"), [(4224, 88.5), (6144, 122.5)])
def test_the_published_run(batch_size: int, published: float) -> None:
    """GLM-130B's log, with the assumptions that every plan starts from."""
    assert model_of().step(batch_size).total == pytest.approx(published, rel=0.1)


def test_its_bubble_and_utilizations() -> None:
    """The paper: bubble 3.8 %, MFU 32.5 %, HFU 43.3 %."""
    model = model_of()
    assert model.step(4224).bubble_share == pytest.approx(0.038, rel=0.1)
    assert model.model_utilization(4224) == pytest.approx(0.325, rel=0.1)
    assert model.hardware_utilization(4224) == pytest.approx(0.433, rel=0.1)


def test_a_step_is_the_sum_of_its_parts_and_utilization_its_inverse() -> None:
    model = model_of()
    step = model.step(4224)
    after = step.data_communication + step.embedding_communication + step.optimizer
    assert step.total == pytest.approx(sum(vars(step.work).values()) + step.bubble + after)
    flops = derived.model_flops_per_sample(model.config) * 4224
    assert model.model_utilization(4224) == pytest.approx(flops / step.total / (768 * 312e12))


def test_equal_stages_idle_as_long_as_the_formula_says() -> None:
    equal = ["model.num_layers=72", "parallel.embedding_and_head_count_as_layers=false", "model.vocab_size=512"]
    model = model_of(*equal)
    assert model.step(4224).bubble_share == pytest.approx(derived.bubble_share(model.config, 176), rel=0.01)


def test_chunks_divide_the_bubble_and_multiply_messages() -> None:
    flat, dealt = (model_of("batch.ramp=null", f"parallel.virtual_stages={chunks}").step(4224) for chunks in (1, 3))
    assert dealt.bubble == pytest.approx(flat.bubble / 3, rel=0.05)
    assert dealt.work.pipeline_communication == pytest.approx(3 * flat.work.pipeline_communication)


def test_recomputation_costs_a_forward_pass_and_selective_a_little() -> None:
    full, selective, none = (model_of(f"parallel.recompute={word}").step(4224).work for word in _RECOMPUTES)
    assert full.recomputation == pytest.approx((none.matrices + none.attention + none.pointwise) / 3, rel=0.05)
    assert 0 < selective.recomputation < 0.06 * full.recomputation
    assert none.recomputation == 0
    assert full.tensor_communication == pytest.approx(1.5 * none.tensor_communication, rel=0.02)


_RECOMPUTES = ("full", "selective", "none")


def test_a_tensor_group_that_leaves_its_machine_pays_for_it() -> None:
    inside, outside = (
        model_of("parallel.tensor=8", "parallel.data=12", gpus_per_node=gpus).step(4224).work.tensor_communication
        for gpus in (8, 4)
    )
    assert outside > 2 * inside


def test_a_slower_network_costs_pipeline_and_data_only() -> None:
    fast, slow = (model_of(hardware=f"a100-40g,network={speed}").step(4224) for speed in (25, 2.5))
    assert slow.work.matrices == fast.work.matrices
    assert slow.work.tensor_communication == fast.work.tensor_communication
    assert slow.data_communication > 9 * fast.data_communication
    assert slow.work.pipeline_communication > 9 * fast.work.pipeline_communication


def test_an_offloaded_optimizer_is_slow() -> None:
    here, away = (model_of(f"parallel.offload_optimizer={word}").step(4224).optimizer for word in ("false", "true"))
    assert away > 20 * here
