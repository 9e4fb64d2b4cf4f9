"""The schedules at their corners, and the closed forms against counting step by step."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.config.errors import UserError
from glm130b.config.interventions import Intervention, SkipRange
from glm130b.config.load import load_config
from glm130b.training.progress import Level, Progress
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


CONSTANT = ("optimizer.learning_rate.warmup_samples=0", "optimizer.learning_rate.minimum=1.0")


def test_an_intervention_holds_for_the_steps_that_begin_from_its_sample_on() -> None:
    lowered = rate(*CONSTANT, "interventions=[{from_samples: 35, learning_rate_factor: 0.5, alpha_factor: 0.1}]")
    assert [lowered.learning_rate(samples) for samples in (0, 20, 30, 40, 600)] == [1, 1, 1, 0.5, 0.5]
    alphas = [lowered.embedding_gradient_alpha(samples) for samples in (30, 40, 600)]
    assert alphas == pytest.approx([0.1, 0.01, 0.01])


def test_an_intervention_may_move_over_samples() -> None:
    moved = rate(
        *CONSTANT,
        "model.embedding_gradient_shrink.alpha=1",
        "interventions=[{from_samples: 30, over_samples: 40, learning_rate_factor: 0.2, alpha_factor: 0.6}]",
    )
    # A step is rated where it ends, and its alpha is that of its first sample.
    rates = [moved.learning_rate(samples) for samples in (20, 30, 40, 50, 60, 70)]
    assert rates == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])
    alphas = [moved.embedding_gradient_alpha(samples) for samples in (20, 30, 40, 60, 70, 80)]
    assert alphas == pytest.approx([1.0, 1.0, 0.9, 0.7, 0.6, 0.6])


def test_a_learning_rate_is_warmed_up_again_and_the_first_step_learns() -> None:
    again = rate(*CONSTANT, "interventions=[{from_samples: 30, rewarm_samples: 40, learning_rate_factor: 0.5}]")
    rates = [again.learning_rate(samples) for samples in (20, 30, 40, 50, 60, 70)]
    assert rates == pytest.approx([1.0, 0.125, 0.25, 0.375, 0.5, 0.5])


def test_factors_follow_each_other_and_alpha_stays_at_most_1() -> None:
    shrink = "model.embedding_gradient_shrink.alpha=1"
    halved = [Intervention(from_samples=n, alpha_factor=0.5, learning_rate_factor=0.5) for n in (20, 40)]
    back = Intervention(from_samples=60, alpha_factor=10.0, learning_rate_factor=8.0)
    config = rate(*CONSTANT, shrink, "interventions=[{from_samples: 0, learning_rate_factor: 0.5}]").config
    several = Schedules(config, (*halved, back))
    assert [several.embedding_gradient_alpha(samples) for samples in (0, 20, 40, 60)] == [1, 0.5, 0.25, 1]
    assert [several.learning_rate(samples) for samples in (0, 20, 40, 60)] == [0.5, 0.25, 0.125, 1]


def test_the_steps_of_the_past_keep_their_batch_sizes() -> None:
    """A run of 10 rows a step has had 15 from step 4 on and 6 from step 6 on, and stands at step 7."""
    progress = Progress(7, 76, levels=(Level(0, 0, 10), Level(4, 40, 15), Level(6, 70, 6)))
    ramp = "batch.ramp={start: 2, increment: 4, over_samples: 160}"  # to 6 at sample 80, to 10 at sample 160
    changed = Schedules(rate("batch.ramp=null", "evaluation.samples=2", ramp).config, progress=progress)
    samples = [0, 10, 20, 30, 40, 55, 70, 76, 78, 80, 86]
    assert [changed.samples_at(step) for step in range(11)] == samples
    assert [changed.step_at(sample) for sample in samples] == list(range(11))
    assert [changed.step_at(sample) for sample in (54, 69, 75, 79)] == [4, 5, 6, 8]


def test_a_past_that_is_not_told_is_the_configs_where_that_leads_to_the_present() -> None:
    config = rate().config
    assert Schedules(config, progress=Progress(7, 70)).samples_at(3) == 30
    assert Schedules(config, progress=Progress(7, 66)).levels == (Level(7, 66, 10),)
    later = Progress(7, 66).after_step(10, applied=True)
    assert Schedules(config, progress=later).levels[0] == Level(7, 66, 10)


interventions = st.builds(
    Intervention,
    from_samples=st.integers(0, 500),
    learning_rate_factor=st.floats(0.1, 2),
    alpha_factor=st.floats(0.1, 2),
    over_samples=st.integers(0, 60),
    rewarm_samples=st.integers(0, 60),
    skip=st.none() | st.builds(SkipRange, from_step=st.integers(0, 60), steps=st.integers(1, 20)),
)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(earlier=st.lists(interventions, max_size=4), later=interventions)
def test_the_past_stays_as_it_was(earlier: list[Intervention], later: Intervention) -> None:
    config = rate("train_samples=1000").config
    before, after = Schedules(config, tuple(earlier)), Schedules(config, (*earlier, later))
    for samples in range(0, later.from_samples, 10):
        assert after.learning_rate(samples) == before.learning_rate(samples)
        assert after.embedding_gradient_alpha(samples) == before.embedding_gradient_alpha(samples)
    skip = range(later.skip.from_step, later.skip.until_step) if later.skip else ()
    for step in range(90):
        assert after.is_skipped(step) == (before.is_skipped(step) or step in skip)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(guards=st.lists(interventions, max_size=6))
def test_ranges_that_overlap_are_passed_over_once(guards: list[Intervention]) -> None:
    config = rate("train_samples=1000", "data.skip_steps=[{from_step: 7, steps: 3}, {from_step: 30, steps: 9}]").config
    run = Schedules(config, tuple(guards))
    named = [*config.data.skip_steps, *(each.skip for each in guards if each.skip)]
    skipped = {step for skip in named for step in range(skip.from_step, skip.until_step)}
    assert [step for step in range(100) if run.is_skipped(step)] == sorted(skipped)
    assert [step for skip in run.skips for step in skip] == sorted(skipped)
    for step in (0, 8, 33, 100):
        samples = [sample for stretch in run.skipped_before(step) for sample in stretch]
        assert samples == [10 * before + n for before in sorted(skipped) if before < step for n in range(10)]


def test_a_run_cannot_be_cut_short_at_a_step_that_its_guard_passed_over() -> None:
    run = ["batch.global_size=10", "batch.ramp=null", "evaluation.samples=10"]
    passed = (Intervention(from_samples=90, skip=SkipRange(from_step=6, steps=3)),)
    Schedules(schedules(*run, "train_samples=91").config, passed)
    Schedules(schedules(*run, "train_samples=60").config, passed)
    with pytest.raises(UserError, match=r"train_samples: 65 ends the run with step 6, .*; write more than 90"):
        Schedules(schedules(*run, "train_samples=65").config, passed)
