"""Memory of the published run, and how it answers to the config. ``tests/numerics/test_plan_memory.py`` measures."""

from pathlib import Path

import pytest

from glm130b.config.load import load_config
from glm130b.plan.cluster import read_hardware
from glm130b.plan.kernels import gpu_kernels
from glm130b.plan.memory import StageMemory, memory_per_stage

GLM = Path(__file__).parents[3] / "configs" / "glm-130b.yaml"
A100 = read_hardware("a100-40g").accelerator


def stages_of(*overrides: str, data: int = 24) -> tuple[StageMemory, ...]:
    config = load_config(GLM, overrides)
    micro_batches = 4224 // data
    kernels = gpu_kernels(config, A100)
    return memory_per_stage(config, data_size=data, micro_batches=micro_batches, kernels=kernels)


def test_the_published_run_fits_and_half_the_stages_do_not() -> None:
    published = stages_of()
    halved = stages_of("parallel.pipeline=4", "parallel.data=48", "batch.ramp=null", data=48)
    assert max(stage.total for stage in published) < 0.75 * A100.memory_bytes
    assert max(stage.total for stage in halved) > A100.memory_bytes


def test_weights_gradients_and_optimizer_of_the_published_run() -> None:
    """2 bytes of weights and 2 of gradients for 4,087 million parameters, 12 / 24 of optimizer."""
    last, parameters = stages_of()[-1], 4_087_119_872
    assert last.weights == last.gradients == 2 * parameters
    assert last.optimizer == 12 * -(-parameters // 24)


def test_full_recomputation_keeps_one_hidden_state_a_layer() -> None:
    """Sections 8 and 7: 8 or 9 layers, 8 or 7 micro-batches, 2 x 2048 x 12288 bytes each."""
    published = stages_of()
    hidden = 2 * 2048 * 12288
    assert published[1].activations == pytest.approx(9 * 7 * hidden, rel=0.15)
    assert published[1].activations - published[2].activations == pytest.approx(9 * hidden, rel=0.02)


def test_each_switch_moves_what_it_should() -> None:
    published = stages_of()[0]
    in_fp32 = stages_of("precision.accumulate_gradients_in_fp32=true")[0]
    assert in_fp32.gradients == 2 * published.gradients
    cut = stages_of("parallel.sequence_parallel=true")[0]
    assert cut.activations < 0.4 * published.activations
    selective, kept = (stages_of(f"parallel.recompute={word}")[0] for word in ("selective", "none"))
    assert published.activations < selective.activations < kept.activations
    plain = stages_of("parallel.recompute=none", "kernels.pointwise=plain")[0]
    assert kept.activations < plain.activations
    offloaded = stages_of("parallel.offload_optimizer=true")[0]
    assert offloaded.on_host == published.optimizer
    assert offloaded.optimizer == published.optimizer // 6


def test_chunks_that_take_turns_keep_more() -> None:
    flat, dealt = (
        stages_of("batch.ramp=null", f"parallel.virtual_stages={chunks}", data=24)[0].activations for chunks in (1, 3)
    )
    assert 1.1 * flat < dealt < 1.6 * flat
