"""The schedules at their corners, and the closed forms against counting step by step."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.config.errors import UserError
from glm130b.config.load import load_config
from glm130b.training.schedules import Schedules

CONFIGS = Path(__file__).parents[3] / "configs"
RUN = Path(__file__).parents[1] / "run.yaml"


def schedules(*overrides: str) -> Schedules:
    return Schedules(load_config(RUN, ["parallel.data=1", "batch.micro_size=1", *overrides]))


def rate(*overrides: str) -> Schedules:
    """Peak 1.0, minimum 0.1, 100 samples of warm-up, cosine to sample 500, batches of 10."""
    learning_rate = "optimizer.learning_rate={peak: 1.0, minimum: 0.1, warmup_samples: 100, decay_samples: 500}"
    return schedules("batch.global_size=10", "batch.ramp=null", "evaluation.samples=10", learning_rate, *overrides)


def test_batch_ramp_of_glm_130b() -> None:
    original = Schedules(load_config(CONFIGS / "glm-130b.yaml"))
    level = 5_493_164 / 168
    assert original.batch_size(0) == 192
    assert original.batch_size(int(level)) == 192
    assert original.batch_size(int(level) + 1) == 216
    assert original.batch_size(int(167 * level)) == 4224 - 2 * 24
    assert original.batch_size(5_493_163) == 4224 - 24
    assert original.batch_size(5_493_164) == 4224
    assert original.batch_size(10**12) == 4224


def test_without_a_ramp_every_batch_is_full() -> None:
    constant = schedules("batch.ramp=null", "train_samples=100")
    assert {constant.batch_size(samples) for samples in (0, 1, 99, 10**9)} == {16}
    assert constant.num_steps == 7
    assert constant.samples_at(constant.num_steps) == 112


def test_the_run_ends_with_the_first_step_that_reaches_its_length() -> None:
    assert schedules("batch.ramp=null", "train_samples=1").num_steps == 1
    assert schedules("batch.ramp=null", "train_samples=16").num_steps == 1
    assert schedules("batch.ramp=null", "train_samples=17").num_steps == 2


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    start=st.integers(1, 6),
    increment=st.integers(1, 5),
    increments=st.integers(1, 12),
    over_samples=st.integers(1, 400),
    train_samples=st.integers(1, 900),
)
def test_steps_and_samples_agree_with_counting(
    start: int, increment: int, increments: int, over_samples: int, train_samples: int
) -> None:
    counted = schedules(
        f"batch.global_size={start + increments * increment}",
        f"batch.ramp={{start: {start}, increment: {increment}, over_samples: {over_samples}}}",
        f"evaluation.samples={start + increments * increment}",
        f"train_samples={train_samples}",
    )
    step = samples = 0
    while samples < train_samples:
        size = counted.batch_size(samples)
        assert counted.samples_at(step) == samples
        assert counted.step_at(samples) == counted.step_at(samples + size - 1) == step
        assert counted.steps_until(samples) == step
        assert counted.steps_until(samples + 1) == counted.steps_until(samples + size) == step + 1
        step, samples = step + 1, samples + size
    assert counted.num_steps == step
    assert counted.samples_at(step) == samples


def test_learning_rate_at_its_corners() -> None:
    corners = rate()
    assert corners.learning_rate(0) == pytest.approx(0.1)  # the first step already learns
    assert corners.learning_rate(40) == pytest.approx(0.5)
    assert corners.learning_rate(90) == 1.0  # ends with the warm-up
    assert corners.learning_rate(290) == pytest.approx(0.55)  # half-way down the cosine
    assert 0.1 < corners.learning_rate(480) < 0.102
    assert corners.learning_rate(490) == 0.1  # ends with the decay
    assert corners.learning_rate(10**12) == 0.1


def test_learning_rate_rises_then_falls() -> None:
    rates = [rate().learning_rate(samples) for samples in range(0, 600, 10)]
    top = rates.index(1.0)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_learning_rate_without_warm_up_and_without_cosine() -> None:
    no_warmup = rate("optimizer.learning_rate.warmup_samples=0")
    assert 0.99 < no_warmup.learning_rate(0) < 1.0
    no_cosine = rate("optimizer.learning_rate.warmup_samples=500")
    assert no_cosine.learning_rate(490) == 1.0
    assert no_cosine.learning_rate(500) == 0.1


def test_embedding_gradient_shrink_follows_its_ramp() -> None:
    ramp = "{start: 1.0, end: 0.1, from_samples: 100, over_samples: 90}"
    shrink = schedules(f"model.embedding_gradient_shrink.alpha={ramp}")
    alphas = [shrink.embedding_gradient_alpha(samples) for samples in (0, 100, 145, 190, 10**9)]
    assert alphas == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])
    assert schedules().embedding_gradient_alpha(7) == 0.1


def test_schedules_need_no_torch() -> None:
    program = "import sys, glm130b.training.schedules; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_skipped_steps_are_a_function_of_the_step_alone() -> None:
    run = schedules(
        *("batch.global_size=10", "batch.ramp=null", "evaluation.samples=10", "train_samples=100"),
        "data.skip_steps=[{from_step: 2, steps: 3}, {from_step: 7, steps: 1}]",
    )
    taken = [0, 1, 5, 6, 8, 9]
    assert [step for step in range(10) if not run.is_skipped(step)] == taken
    for begin in range(11):
        steps = [range(10 * s, 10 * s + 10) for s in (*taken, *range(10, 20)) if s >= begin]
        assert list(islice(run.steps_from(10 * begin), len(steps))) == steps
    assert [list(run.skipped_before(step)) for step in (2, 4, 5, 9)] == [
        [],
        [range(20, 40)],
        [range(20, 50)],
        [range(20, 50), range(70, 80)],
    ]


def test_skipped_steps_count_rows_of_a_ramp_as_trained_ones_do() -> None:
    ramped = ["batch.global_size=12", "batch.ramp={start: 4, increment: 4, over_samples: 16}", "evaluation.samples=12"]
    whole = list(islice(schedules(*ramped, "train_samples=100").steps_from(0), 12))
    without = schedules(*ramped, "train_samples=100", "data.skip_steps=[{from_step: 1, steps: 2}]")
    assert list(islice(without.steps_from(0), 10)) == [whole[0], *whole[3:]]
    assert list(without.skipped_before(9)) == [range(whole[1].start, whole[2].stop)]


def test_the_last_step_cannot_be_passed_over() -> None:
    run = ["batch.global_size=10", "batch.ramp=null", "evaluation.samples=10", "train_samples=95"]
    schedules(*run, "data.skip_steps=[{from_step: 8, steps: 1}]")
    with pytest.raises(UserError, match=r"data\.skip_steps: passes over step 9, the run's last"):
        schedules(*run, "data.skip_steps=[{from_step: 8, steps: 2}]")
