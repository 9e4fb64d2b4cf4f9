"""The whole run: every step of the ramp, then price."""

from pathlib import Path

import pytest

from glm130b.config.load import load_config
from glm130b.plan.cluster import read_hardware
from glm130b.plan.cost import batch_levels, cost
from glm130b.plan.kernels import gpu_kernels
from glm130b.plan.step_time import StepModel
from glm130b.training.schedules import Schedules

RUN = Path(__file__).parents[1] / "run.yaml"
GLM = Path(__file__).parents[3] / "configs" / "glm-130b.yaml"


@pytest.mark.parametrize("train_samples", [3200, 160, 159, 50, 1])
def test_the_levels_are_the_steps_of_the_run(train_samples: int) -> None:
    """Also of one that ends on its way up, which takes 160 samples."""
    schedules = Schedules(load_config(RUN, [f"train_samples={train_samples}"]))
    sizes = [schedules.batch_size(schedules.samples_at(step)) for step in range(schedules.num_steps)]
    assert [size for size, steps in batch_levels(schedules) for _ in range(steps)] == sizes
    assert all(steps > 0 for _, steps in batch_levels(schedules))


def test_glm_130b_rises_by_every_size() -> None:
    """The step counts of its plan: 192 rows, 24 more 168 times, and what is left at 4224."""
    levels = list(batch_levels(Schedules(load_config(GLM))))
    assert [size for size, _ in levels] == list(range(192, 4225, 24))
    assert sum(steps for _, steps in levels) == 55_014


def test_a_run_is_the_sum_of_its_steps() -> None:
    config = load_config(RUN)
    cluster = read_hardware("a100-40g", price=2.0)
    model = StepModel(config, 2, cluster, gpu_kernels(config, cluster.accelerator))
    schedules = Schedules(config)
    steps = range(schedules.num_steps)
    took = sum(model.step(schedules.batch_size(schedules.samples_at(step))).total for step in steps)
    spent = cost(model)
    assert (spent.steps, spent.samples, spent.tokens) == (207, 3204, 3204 * 256)  # the last step is whole
    assert spent.seconds == pytest.approx(took)
    assert spent.days == pytest.approx(took / 86400)
    assert spent.dollars == pytest.approx(8 * took / 3600 * 2.0)
