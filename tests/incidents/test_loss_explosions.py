"""Data that makes NaN (2022-05-28), losses that explode and scales that collapse (06-12, 06-14), noisy data cured by
going back and passing it over (06-20), spikes of the gradient norm (06-22)."""

import math

import pytest

from tests.harness.incidents import STOPPED
from tests.harness.incidents_run import assert_nothing_lost
from tests.harness.incidents_strikes import UPDATE, NoisyRows, Strike, be_killed
from tests.incidents.conftest import ROWS, Site, Undisturbed

STEPS, FIRST = 42, 24
"""Of the runs here, and the first step of the trouble, counted from 0."""
LONGER = (f"train_samples={STEPS * ROWS}", "stability.quiet_steps=8", "stability.window_steps=16")
SPIKES = ("stability.loss.deviations=4", "stability.loss.in_a_row=2")
REWIND = (
    *SPIKES,
    "stability.loss.actions=[rewind]",
    "stability.rewind={margin_steps: 4, skip_before_steps: 2, skip_after_steps: 4}",
)


def noise(*, steps: int, factor: float = 1.0) -> NoisyRows:
    return NoisyRows(FIRST * ROWS, steps * ROWS, factor)


def passed_over(first: int, steps: int) -> str:
    """The user's own words for what the guard does: the oracle."""
    return f"data.skip_steps=[{{from_step: {first}, steps: {steps}}}]"


def test_a_loss_that_is_not_a_number_never_reaches_the_weights(site: Site, undisturbed: Undisturbed) -> None:
    """2022-05-28. The run ends bit for bit as if those steps had been passed over."""
    run = site.run(*LONGER, lasting=[noise(steps=2, factor=math.nan)])
    assert [start.statuses for start in run.starts] == [[0, 0]]
    assert [event["step"] for event in run.events("not finite")] == [FIRST + 1, FIRST + 2]
    assert run.steps[-1]["skipped_updates"] == 2
    assert run.tensors(STEPS) == undisturbed(*LONGER, passed_over(FIRST, 2)).tensors(STEPS)


def test_noisy_data_is_gone_back_from_and_passed_over(site: Site, undisturbed: Undisturbed) -> None:
    """2022-06-20, by hand then: the second spike of the row takes the run back to step 18, and past steps 22 to 29."""
    run = site.run(*LONGER, *REWIND, lasting=[noise(steps=4)])
    assert [start.statuses for start in run.starts] == [[0, 0]]
    assert [event["step"] for event in run.events("rewound")] == [FIRST + 2]
    assert [event["step"] for event in run.events("loss")] == [FIRST + 1, FIRST + 2]
    assert run.steps[-1]["skipped_steps"] == 8
    oracle = undisturbed(*LONGER, passed_over(FIRST - 2, 8))
    assert run.losses == oracle.losses
    assert run.tensors(STEPS) == oracle.tensors(STEPS)


@pytest.mark.full
@pytest.mark.parametrize("after_updates", [FIRST + 4, FIRST + 14])
def test_a_restart_repeats_what_the_guard_has_decided(site: Site, undisturbed: Undisturbed, after_updates: int) -> None:
    """Killed just after going back, when the newest checkpoint knows nothing of it; and later, when it does."""
    words, lasting = (*LONGER, *REWIND), [noise(steps=4)]
    run = site.run(*words, lasting=lasting, faults=[Strike(1, UPDATE, be_killed, call=after_updates)])
    assert_nothing_lost(run)
    oracle = undisturbed(*words, lasting=lasting)
    assert run.losses == oracle.losses
    assert run.tensors(STEPS) == oracle.tensors(STEPS)
    assert run.description(STEPS)["guard"] == oracle.description(STEPS)["guard"]


@pytest.mark.full
def test_the_run_goes_back_to_before_its_mixture_was_changed(site: Site) -> None:
    """To rows of a source that it does not draw from any more."""
    words = (*LONGER, *REWIND, "checkpoint.asynchronous=false")
    site.run(*words, faults=[Strike(1, UPDATE, be_killed, call=FIRST + 1)], most_starts=1)
    run = site.run(*words, "data.text.others.weight=0", lasting=[noise(steps=4)])
    assert [start.statuses for start in run.starts] == [[0, 0]], run.starts[0].said()
    assert [event["step"] for event in run.events("rewound")] == [FIRST + 2]
    assert [era["from_samples"] for era in run.description(STEPS)["eras"]] == [0, FIRST * ROWS]


@pytest.mark.full
def test_a_gradient_spike_is_not_applied(site: Site, undisturbed: Undisturbed) -> None:
    """2022-06-22."""
    rule = "stability.gradient_norm={ratio: 3.0, deviations: 5.0, actions: [skip_update]}"
    run = site.run(*LONGER, rule, lasting=[noise(steps=1, factor=30.0)])
    assert [start.statuses for start in run.starts] == [[0, 0]]
    assert [event["step"] for event in run.events("gradient norm")] == [FIRST + 1]
    assert run.steps[-1]["skipped_updates"] == 1
    assert run.tensors(STEPS) == undisturbed(*LONGER, passed_over(FIRST, 1)).tensors(STEPS)


@pytest.mark.full
def test_a_spike_of_the_embedding_shrinks_its_gradient(site: Site, undisturbed: Undisturbed) -> None:
    """2022-06-12 and 06-14: alpha 1, then 0.5; from the next step on, and after a kill as before it."""
    rule = "stability.embedding_gradient_norm={ratio: 3.0, deviations: 5.0, actions: [skip_update, shrink_alpha]}"
    lasting = [noise(steps=1, factor=30.0)]
    run = site.run(*LONGER, rule, lasting=lasting, faults=[Strike(0, UPDATE, be_killed, call=34)])
    assert_nothing_lost(run)
    alphas = [record["shrink_alpha"] for record in run.steps]
    assert alphas == [0.5] * (FIRST + 1) + [0.25] * (STEPS - FIRST - 1)
    oracle = undisturbed(*LONGER, rule, lasting=lasting)
    assert run.losses == oracle.losses
    assert run.tensors(STEPS) == oracle.tensors(STEPS)


@pytest.mark.full
def test_a_learning_rate_that_explodes_the_loss(site: Site, undisturbed: Undisturbed) -> None:
    """A user's change a hundred times too bold; the guard goes back, takes it down and finishes."""
    too_bold = f"interventions=[{{from_samples: {FIRST * ROWS}, learning_rate_factor: 300.0}}]"
    policy = (
        *SPIKES,
        "stability.loss.actions=[rewind, lower_learning_rate]",
        "stability.rewind={margin_steps: 4, skip_before_steps: 2, skip_after_steps: 2}",
        "stability.learning_rate_factor=0.003",
    )
    run = site.run(*LONGER, *policy, too_bold)
    assert [start.statuses for start in run.starts] == [[0, 0]]
    assert run.events("rewound")
    assert run.losses[-1] < undisturbed(*LONGER).losses[-1] + 0.3
    unguarded = undisturbed(*LONGER, "stability.loss.actions=[warn]", too_bold)
    assert not unguarded.losses[-1] < run.losses[-1] + 0.5  # it may be no number at all


FP16 = (*LONGER, "precision.dtype=fp16", "precision.loss_scale={initial_power: 32, hysteresis: 1}")


@pytest.mark.full
def test_overflows_are_counted_and_the_scale_finds_its_place(site: Site) -> None:
    run = site.run(*FP16)
    assert [start.statuses for start in run.starts] == [[0, 0]]
    last = run.steps[-1]
    assert last["loss_scale"] == 2.0 ** (32 - last["skipped_updates"])
    assert last["skipped_updates"] >= 5
    assert math.isfinite(last["loss"])


@pytest.mark.full
def test_a_scale_that_collapses_acts_by_policy(site: Site) -> None:
    """2022-06-12: so many overflows in a row, and the run changes or ends as its config says."""
    acting = "stability.overflow={in_a_row: 4, actions: [lower_learning_rate]}"
    run = site.run(*FP16, acting, "stability.pause_steps=100")
    assert [start.statuses for start in run.starts] == [[0, 0]]
    assert run.events("overflow")[0]["step"] == 4
    rates = [record["learning_rate"] for record in run.steps]
    assert rates[4] == pytest.approx(0.5 * rates[3], rel=0.02)


@pytest.mark.full
def test_a_scale_at_its_minimum_stops_the_run_and_it_goes_on_when_told(site: Site) -> None:
    minimum = "precision.loss_scale={initial_power: 32, hysteresis: 1, minimum: 1073741824.0}"
    stopping = "stability.minimum_scale={in_a_row: 3, actions: [stop]}"
    run = site.run(*LONGER, "precision.dtype=fp16", minimum, stopping)
    assert [start.statuses for start in run.starts] == [[STOPPED, STOPPED]]
    assert (run.folder / "ended").read_text(encoding="utf-8").strip() == "stopped"
    assert run.saved_steps[-1] == run.starts[0].steps[-1] < STEPS
    mended = site.run(*LONGER, "precision.dtype=fp16", "precision.loss_scale.minimum=1.0")
    assert [start.statuses for start in mended.starts] == [[0, 0]]
    assert mended.steps[-1]["step"] == STEPS
