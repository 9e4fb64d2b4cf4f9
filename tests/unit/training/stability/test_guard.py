"""The guard on readings made by hand: what is told, what is done, and that a cut changes nothing."""

import json
import math
import random
from dataclasses import replace

import pytest

from glm130b.training.stability.guard import Guard
from glm130b.training.stability.memory import Memory, Row
from glm130b.training.stability.reading import SIGNALS, Reading
from glm130b.training.stability.verdict import Rewind, Verdict
from tests.unit.training.stability.readings import BATCH, QUIET, calm, guarding, overflow, schedules, settled, verdicts

GRADIENT = "stability.gradient_norm"


def spike(step: int, **changes: float) -> Reading:
    return calm(step, **(changes or {"gradient_norm": 9.0}))


def told(verdict: Verdict) -> list[str]:
    return [finding.rule for finding in verdict.findings]


def test_nothing_is_judged_before_the_window_is_quiet() -> None:
    early = verdicts(guarding(), [spike(step) if step == QUIET - 1 else calm(step) for step in range(QUIET)])
    assert not any(map(told, early))
    late = verdicts(guarding(), [spike(step) if step == QUIET else calm(step) for step in range(QUIET + 1)])
    assert told(late[-1]) == ["gradient_norm"]


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_spike_is_told_with_its_numbers_and_the_update_is_made(signal: str) -> None:
    guard = settled()
    before = guard.memory
    (verdict,) = verdicts(guard, [calm(32, **{signal: 9.0})])
    (finding,) = verdict.findings
    assert finding.rule == signal
    assert finding.message.startswith(f"{signal} 9 is ")
    assert "deviations above the median 0.999956 of 32 steps" in finding.message
    assert finding.message.endswith("1 in a row since step 33")
    assert {"value": 9.0, "row": 1, "first_step": 33}.items() <= finding.details.items()
    assert verdict.permits_update
    assert (verdict.interventions, verdict.rewind, verdict.stop) == ((), None, False)
    assert verdict.memory.windows[signal].values == before.windows[signal].values, "a spike moves no median"


def test_judging_changes_nothing() -> None:
    guard = settled(f"{GRADIENT}.actions=[rewind]")
    before = guard.memory
    assert guard.judge(spike(32)) == guard.judge(spike(32))
    assert guard.memory is before


def test_an_action_waits_for_its_row_and_the_updates_in_it_are_made() -> None:
    guard = settled("stability.loss.actions=[shrink_alpha, skip_update]")
    row = verdicts(guard, [spike(32, loss=2.0), spike(33, loss=2.0), calm(34), *(spike(s, loss=2.0) for s in (35, 36))])
    assert all(verdict.permits_update and not verdict.interventions for verdict in row)
    (third,) = verdicts(guard, [spike(37, loss=2.0)])
    assert not third.permits_update
    (intervention,) = third.interventions
    assert (intervention.from_samples, intervention.alpha_factor, intervention.skip) == (38 * BATCH, 0.5, None)
    assert intervention.learning_rate_factor == 1
    assert intervention.reason.startswith("loss 2 is ")
    assert intervention.reason.endswith("3 in a row since step 36")
    assert third.findings[0].message == f"{intervention.reason}: alpha x 0.5, from sample 380 on"
    assert guard.memory.rows == {}
    assert guard.memory.interventions == third.interventions


def test_skipping_goes_on_as_long_as_the_row_does() -> None:
    guard = settled("stability.loss.actions=[skip_update]")
    applied = [verdict.permits_update for verdict in verdicts(guard, [spike(s, loss=2.0) for s in range(32, 38)])]
    assert applied == [True, True, False, False, False, False]
    assert guard.judge(calm(38)).permits_update


@pytest.mark.parametrize("actions", ["[]", "[warn]", "[skip_update]"])
def test_many_spikes_in_a_row_are_a_new_level(actions: str) -> None:
    guard = settled(f"{GRADIENT}.actions={actions}")
    found = verdicts(guard, [spike(32 + step, gradient_norm=9 + 0.1 * math.sin(step)) for step in range(QUIET + 8)])
    assert [bool(verdict.findings) for verdict in found] == [True] * QUIET + [False] * 8
    assert "from here on this is the level" in found[QUIET - 1].findings[0].message
    assert told(*verdicts(guard, [spike(60, gradient_norm=90.0)])) == ["gradient_norm"]


def test_a_level_that_is_interrupted_is_none_yet() -> None:
    guard = settled()
    steps = range(32, 32 + 3 * QUIET)
    found = verdicts(guard, [calm(step) if step % QUIET == 0 else spike(step) for step in steps])
    assert [bool(verdict.findings) for verdict in found] == [step % QUIET != 0 for step in steps]


def test_a_rule_that_changes_the_run_does_so_until_a_person_is_needed() -> None:
    guard = settled(f"{GRADIENT}.actions=[lower_learning_rate]", "stability.pause_steps=20")
    found = verdicts(guard, [spike(step) for step in range(32, 32 + 10 * 20 + 1)])
    assert [step for step, verdict in enumerate(found) if verdict.interventions] == list(range(0, 200, 20 + 1))
    assert found[1].findings[0].message.endswith("the last intervention has until step 53 to take effect")
    assert (found[0].findings[0].details["acted"], found[1].findings[0].details["acted"]) == (True, False)
    assert not any(verdict.stop for verdict in found)
    found = verdicts(guard, [spike(step) for step in range(233, 260)])
    assert next(step for step, verdict in enumerate(found, 233) if verdict.stop) == 242  # 32 + 10 x 21
    assert not found[242 - 233].permits_update
    assert "this would be intervention 11, 10 are the most: the run stops" in found[242 - 233].findings[0].message


def test_while_a_change_takes_effect_updates_may_still_be_skipped() -> None:
    guard = settled(f"{GRADIENT}.actions=[lower_learning_rate, skip_update]", "stability.pause_steps=20")
    changed, paused = verdicts(guard, [spike(32), spike(33)])
    assert (bool(changed.interventions), bool(paused.interventions)) == (True, False)
    assert not paused.permits_update
    assert paused.findings[0].message.endswith("to take effect, the update is skipped")
    assert paused.findings[0].details["acted"]


def test_all_complete_rules_make_one_intervention() -> None:
    guard = settled(
        f"{GRADIENT}.actions=[lower_learning_rate, rewarm]",
        "stability.embedding_gradient_norm.actions=[lower_learning_rate, shrink_alpha]",
        "stability.rewarm_steps=7",
    )
    (verdict,) = verdicts(guard, [spike(32, gradient_norm=9.0, embedding_gradient_norm=8.0)])
    (one,) = verdict.interventions
    assert (one.learning_rate_factor, one.alpha_factor, one.rewarm_samples) == (0.5, 0.5, 7 * BATCH)
    assert "gradient_norm 9 is" in one.reason
    assert "embedding_gradient_norm 8 is" in one.reason


def test_stop_comes_before_anything_else() -> None:
    guard = settled(f"{GRADIENT}.actions=[rewind]", "stability.embedding_gradient_norm.actions=[stop]")
    (verdict,) = verdicts(guard, [spike(32, gradient_norm=9.0, embedding_gradient_norm=8.0)])
    assert verdict.stop
    assert not verdict.permits_update
    assert (verdict.interventions, verdict.rewind) == ((), None)
    assert [finding.message.endswith(": the run stops") for finding in verdict.findings] == [True, True]


REWIND = [
    "stability.loss.actions=[rewind, lower_learning_rate]",
    "stability.rewind={margin_steps: 6, skip_before_steps: 4, skip_after_steps: 20}",
]


def test_a_rewind_names_the_checkpoint_and_passes_over_the_row() -> None:
    guard = settled(*REWIND)
    *_, verdict = verdicts(guard, [spike(step, loss=2.0) for step in (32, 33, 34)])
    assert verdict.rewind == Rewind(before_step=32 - 6)
    assert not verdict.permits_update
    (one,) = verdict.interventions
    assert one.skip is not None
    assert (one.skip.from_step, one.skip.until_step) == (32 - 4, 34 + 20 + 1)
    assert one.from_samples == one.skip.until_step * BATCH, "what lies before the range goes as it went"
    assert "back to step 26 or before, past steps 29 .. 55, learning rate x 0.5, from sample 550 on" in (
        verdict.findings[0].message
    )


def test_a_rewind_spares_the_last_step_and_stays_inside_the_run() -> None:
    (*_, verdict) = verdicts(settled(*REWIND, steps=40), [spike(step, loss=2.0) for step in (32, 33, 34)])
    assert verdict.interventions[0].skip is not None
    assert verdict.interventions[0].skip.until_step == 39
    wide = ["stability.loss.in_a_row=1", "stability.rewind={margin_steps: 99, skip_before_steps: 99}"]
    (verdict,) = verdicts(settled(*REWIND[:1], *wide), [spike(32, loss=2.0)])
    assert verdict.rewind == Rewind(before_step=0)
    assert verdict.interventions[0].skip is not None
    assert verdict.interventions[0].skip.from_step == 0


def test_after_a_rewind_the_past_is_as_it_was_and_the_decisions_stay() -> None:
    guard = settled(*REWIND)
    older = guard.memory
    *_, verdict = verdicts(guard, [spike(step, loss=2.0) for step in (32, 33, 34)])
    memory = verdict.memory.rewound_to(older)
    assert (memory.windows, memory.rows) == (older.windows, older.rows)
    assert memory.interventions == verdict.interventions
    assert memory.settled_step == verdict.memory.settled_step == 55


def test_a_second_rewind_goes_on_from_the_first() -> None:
    """It does not wait for the first to settle, and its row begins behind the range passed over."""
    guard = settled(*REWIND, "stability.pause_steps=100")
    older = guard.memory
    *_, first = verdicts(guard, [spike(step, loss=2.0) for step in (32, 33, 34)])
    again = guarding(*REWIND, "stability.pause_steps=100", memory=first.memory.rewound_to(older))
    *_, second = verdicts(again, [spike(step, loss=2.0) for step in (55, 56, 57)])
    assert second.rewind == Rewind(before_step=49)
    assert len(second.memory.interventions) == 2


def test_a_run_whose_batches_have_changed_cannot_pass_over_steps() -> None:
    guard = settled(f"{GRADIENT}.actions=[rewind]")
    (verdict,) = verdicts(guard, [replace(spike(32), samples=32 * BATCH + 1)])
    assert verdict.stop
    assert verdict.rewind is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("signal", SIGNALS)
def test_what_is_not_finite_never_reaches_the_weights(signal: str, value: float) -> None:
    guard = settled()
    before = guard.memory.windows
    found = verdicts(guard, [calm(32 + step, **{signal: value}) for step in range(10)])
    assert not any(verdict.permits_update for verdict in found)
    assert [told(verdict) for verdict in found] == [["not_finite"]] * 10
    assert [verdict.stop for verdict in found] == [False] * 9 + [True]
    assert guard.memory.windows[signal] == before[signal]
    assert f"{signal} {value:g}" in found[0].findings[0].message
    json.dumps([dict(finding.details) for verdict in found for finding in verdict.findings], allow_nan=False)


def test_a_step_without_a_number_neither_ends_nor_lengthens_a_row_of_spikes() -> None:
    guard = settled("stability.loss.actions=[stop]")
    row = [spike(32, loss=2.0), calm(33, loss=math.nan), spike(34, loss=2.0), spike(35, loss=2.0)]
    assert [verdict.stop for verdict in verdicts(guard, row)] == [False, False, False, True]


def test_overflow_is_ordinary_in_fp16_until_its_row_is_long() -> None:
    guard = settled("precision.dtype=fp16", "stability.overflow={in_a_row: 4, actions: [shrink_alpha]}")
    found = verdicts(guard, [overflow(step) for step in range(32, 36)])
    assert [told(verdict) for verdict in found] == [[], [], [], ["overflow"]]
    assert not any(verdict.permits_update for verdict in found)
    assert found[-1].interventions[0].alpha_factor == 0.5


def test_overflow_outside_fp16_and_with_a_loss_that_is_none_is_a_fault() -> None:
    assert told(*verdicts(settled("precision.dtype=bf16"), [overflow(32)])) == ["not_finite"]
    assert told(*verdicts(settled("precision.dtype=fp16"), [overflow(32, loss=math.nan)])) == ["not_finite"]


def test_overflow_at_the_smallest_scale() -> None:
    guard = settled("precision.dtype=fp16", "stability.minimum_scale.in_a_row=2")
    found = verdicts(guard, [overflow(32), *(overflow(step, at_minimum_scale=True) for step in (33, 34))])
    assert [told(verdict) for verdict in found] == [[], ["minimum_scale"], ["minimum_scale"]]
    assert [verdict.stop for verdict in found] == [False, False, True]


def test_a_guard_cut_anywhere_judges_as_the_one_that_is_not() -> None:
    """Every verdict of a wild run, from memory that went through JSON before each step."""
    rules = [
        *("precision.dtype=fp16", "stability.pause_steps=5", "stability.most_interventions=30", *REWIND),
        f"{GRADIENT}.actions=[shrink_alpha, rewarm]",
        "stability.embedding_gradient_norm={in_a_row: 2, actions: [skip_update]}",
        "stability.overflow={in_a_row: 3, actions: [lower_learning_rate]}",
        "stability.not_finite={in_a_row: 2, actions: [rewind]}",
    ]
    rng, wild, state = random.Random(3), [], 0
    for step in range(350):
        state = rng.choice([0] * 4 + list(range(6))) if step > 40 and rng.random() < 0.4 else state
        kinds = [calm(step), spike(step), spike(step, loss=2.0), spike(step, embedding_gradient_norm=9.0)]
        wild.append([*kinds, overflow(step), calm(step, loss=math.nan)][state])
    whole = verdicts(guarding(*rules), wild)
    memory, run = Memory(), schedules(*rules)
    for reading, expected in zip(wild, whole, strict=True):
        saved = json.dumps(memory.model_dump(mode="json"), allow_nan=False)
        resumed = Guard(run.config.stability, Memory.model_validate_json(saved), schedules=run)
        assert resumed.judge(reading) == expected
        memory = expected.memory
    assert {finding.rule for verdict in whole for finding in verdict.findings} >= {*SIGNALS, "not_finite", "overflow"}
    assert len(memory.interventions) > 5
    assert any(verdict.rewind for verdict in whole)


def test_memory_that_nobody_wrote_is_refused() -> None:
    memory = Memory(rows={"loss": Row(first_step=3)})
    assert Memory.model_validate_json(memory.model_dump_json()) == memory
    for data in ({"rows": 1}, {"windows": {"loss": {"values": [math.nan]}}}, [], {"unknown": 1}):
        with pytest.raises(ValueError, match=r"."):
            Memory.model_validate_json(json.dumps(data))
