"""Every source has had its due share at every moment, objectives theirs, and no row is drawn twice or left out."""

import pickle
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.data.mixing.era import Era
from glm130b.data.mixing.mixture import Draw, Mixture
from glm130b.data.mixing.permutation import Permutation
from glm130b.data.mixing.shares import Kind
from tests.unit.data.mixing.eras import dues, era, ramp, weights

STAIRS = 1 / 4
"""A ramp is a staircase, right to this part of a sample."""


def source_of(draw: Draw) -> tuple[bool, str]:
    return draw.objective == "instruction", draw.source


def largest_distances(eras: Sequence[Era], samples: int) -> dict[str, float]:
    """The most that a source, an (objective, source) and an objective is ever off the sum of its shares."""
    mixture, largest = Mixture(eras), {"source": 0.0, "leaf": 0.0, "objective": 0.0}
    counts: dict[str, Counter[Any]] = {"source": Counter(), "leaf": Counter(), "objective": Counter()}
    for sample, due in enumerate(dues(eras, samples)[1:]):
        draw = mixture.locate(sample)
        assert draw.ordinal == counts["source"][source_of(draw)]
        sums: dict[str, dict[Any, float]] = {"source": defaultdict(float), "leaf": {}, "objective": defaultdict(float)}
        for (objective, source), share in due.items():
            sums["source"][objective == "instruction", source] += share
            sums["leaf"][objective, source] = share
            sums["objective"][objective] += share
        for level, key in (
            ("source", source_of(draw)), ("leaf", (draw.objective, draw.source)), ("objective", draw.objective)
        ):  # fmt: skip
            counts[level][key] += 1
        for level, shares in sums.items():
            off = (abs(counts[level][key] - share) for key, share in shares.items())
            largest[level] = max(largest[level], *off)
        if sample % 16 == 0:
            assert sum(mixture.rows(sample).values()) == sample
    rows = mixture.rows(samples)
    assert {(kind.objective, kind.source): count for kind, count in rows.items() if count} == counts["leaf"]
    assert set(mixture.kinds) <= set(rows)
    return largest


def test_glm_130b_keeps_its_shares() -> None:
    """5 % instructions; 30 % [MASK] and 70 % [gMASK] of the rest; two languages."""
    largest = largest_distances([era({"en": 0.5, "zh": 0.5}, {"mip": 1.0}, instruction=0.05)], 10_000)
    assert largest["source"] < 1
    assert largest["leaf"] < 1.5
    assert largest["objective"] < 1.5


shares = st.floats(0, 1)
named = st.lists(weights, min_size=1, max_size=6).map(lambda values: {f"s{i}": w for i, w in enumerate(values)})


@settings(deadline=None, max_examples=25)
@given(shares, shares, shares, named, named)
def test_the_bounds_hold_for_any_constant_mixture(
    instruction: float, masked: float, sentences: float, text: dict[str, float], instructions: dict[str, float]
) -> None:
    mask, smask = masked * (1 - sentences), masked * sentences
    largest = largest_distances([era(text, instructions, instruction=instruction, mask=mask, smask=smask)], 500)
    assert largest["source"] < 1 + 1e-9
    assert largest["leaf"] < 2.5  # 1.5 of the source's draws, and they are off by less than 1


def ramps(values: st.SearchStrategy[float]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(ramp, values, values, st.integers(0, 200), st.integers(0, 400))


@settings(deadline=None, max_examples=25)
@given(
    ramps(shares),
    ramps(shares),
    st.lists(ramps(weights | st.just(0.0)), max_size=3),
    st.lists(ramps(weights | st.just(0.0)), max_size=3),
)
def test_the_bounds_hold_while_everything_ramps(
    instruction: dict[str, Any], mask: dict[str, Any], text: list[dict[str, Any]], instructions: list[dict[str, Any]]
) -> None:
    """Up, down, from nothing and to nothing; one source of each kind always has a weight."""
    sections = [{"always": 0.1} | {f"s{i}": w for i, w in enumerate(section)} for section in (text, instructions)]
    largest = largest_distances([era(*sections, instruction=instruction, mask=mask)], 700)
    assert largest["source"] < 1 + 2 * STAIRS
    assert largest["leaf"] < 2 + 2 * STAIRS


def test_eras_add_remove_and_reweigh_and_leave_the_past() -> None:
    eras = [
        era({"en": 0.6, "zh": 0.4}, {"mip": 1.0}, instruction=0.05),
        era({"en": 0.3, "zh": 0.4, "code": ramp(0.0, 0.5, 200, 300)}, {"mip": 1.0}, instruction=0.05, start=311),
        era({"zh": 0.4, "code": 0.5}, {"mip": 1.0, "en": 2.0}, instruction=0.2, mask=0.1, smask=0.2, start=640),
    ]
    largest = largest_distances(eras, 1200)
    assert largest["source"] < 1 + STAIRS
    assert largest["leaf"] < 2
    whole = [Mixture(eras).locate(sample) for sample in range(640)]
    for known in (1, 2):
        mixture = Mixture(eras[:known])
        end = eras[known].from_samples
        assert [mixture.locate(sample) for sample in range(end)] == whole[:end]
    for sample in (0, 310, 311, 639):
        assert Mixture(eras).locate(sample) == whole[sample]


def test_an_era_that_changes_the_objectives_only_goes_on_counting() -> None:
    eras = [era({"a": 1.0, "b": 0.7}, mask=0.3), era({"a": 1.0, "b": 0.7}, mask=0.6, smask=0.1, start=105)]
    assert largest_distances(eras, 600)["leaf"] < 2
    mixture = Mixture(eras)
    assert sum(mixture.rows(105).values()) == 105


def test_objectives_are_not_tied_to_sources() -> None:
    """Two equal sources would alternate in step with two equal objectives of the sample's index."""
    mixture = Mixture([era({"a": 0.5, "b": 0.5}, mask=0.5)])
    assert set(mixture.rows(10_000).values()) == {2500}


def test_equal_sources_do_not_all_round_at_once() -> None:
    text = {f"s{i}": 1.0 for i in range(16)}
    assert largest_distances([era(text, mask=0.3)], 2000)["objective"] < 3  # 8 with one phase for all


def test_a_source_is_read_once_an_epoch() -> None:
    mixture, rows = Mixture([era({"a": 0.7, "b": 0.3})]), 50
    ordinals = [draw.ordinal for draw in map(mixture.locate, range(1000)) if draw.source == "b"]
    for epoch in range(len(ordinals) // rows):
        order = Permutation(rows, "b", epoch)
        met = [order.at(ordinal % rows) for ordinal in ordinals if ordinal // rows == epoch]
        assert sorted(met) == list(range(rows))


def test_a_text_and_an_instruction_set_of_one_name_are_two_sources() -> None:
    mixture = Mixture([era({"same": 1.0}, {"same": 1.0}, instruction=0.5)])
    draws = [mixture.locate(sample) for sample in range(100)]
    for is_instruction in (True, False):
        ordinals = [draw.ordinal for draw in draws if source_of(draw)[0] == is_instruction]
        assert ordinals == list(range(50))


def test_a_source_ramped_down_to_nothing_ends_and_one_ramped_up_begins() -> None:
    text = {"old": ramp(1.0, 0.0, 100, 100), "new": ramp(0.0, 1.0, 100, 100)}
    mixture = Mixture([era(text, {"mip": 1.0}, instruction=ramp(0.5, 0.0, 100, 100))])
    draws = [mixture.locate(sample) for sample in range(1000)]
    assert {draw.source for draw in draws[:90]} == {"old", "mip"}
    assert {draw.source for draw in draws[210:]} == {"new"}


def test_a_last_row_that_is_late_has_an_objective_of_its_source() -> None:
    """The sources end at sample 2, the last with a row to come; from there on rows have another objective."""
    ending = {f"t{i}": ramp(1.0, 0.0, 2, 0) for i in range(4)}
    late = era(ending | {"go": ramp(0.0, 1.0, 2, 0)}, mask=ramp(1.0, 0.0, 2, 0), smask=ramp(0.0, 1.0, 2, 0))
    mixture = Mixture([late])
    assert all(Kind(draw.objective, draw.source) in mixture.kinds for draw in map(mixture.locate, range(40)))
    assert all(sum(mixture.rows(samples).values()) == samples for samples in range(40))


def test_a_row_ahead_of_its_due_counts_though_its_era_ends_before_its_objective_begins() -> None:
    """The first row of a source that is due half of it under [MASK], and the other half under [gMASK]."""
    mixture = Mixture([era({"a": 1.0, "b": 1.0}, mask=ramp(1.0, 0.0, 1, 0)), era({"b": 1.0}, mask=1.0, start=1)])
    assert mixture.locate(0) == Draw("gmask", "a", 0)
    assert Kind("gmask", "a") not in mixture.kinds
    assert mixture.rows(1)[Kind("gmask", "a")] == 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("abcdef"), ramps(weights | st.just(0.0)), max_size=5),
            st.sampled_from([ramp(1.0, 0.0, 30, 0), ramp(0.0, 1.0, 40, 0), 0.0, 1.0, 0.4]),
            st.integers(1, 90),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_every_row_is_of_a_kind_that_the_last_config_names(
    changes: list[tuple[dict[str, Any], Any, int]],
) -> None:
    """Training opens the sources of the config it runs with, and nothing of the eras before."""
    eras, start = [], 0
    for text, mask, length in changes:
        eras.append(era({"always": 0.1} | text, mask=mask, start=start))
        start += length
    mixture, last = Mixture(eras), eras[-1]
    named = Mixture([last.model_copy(update={"from_samples": 0})]).kinds
    for sample in range(last.from_samples, last.from_samples + 100):
        draw = mixture.locate(sample)
        assert Kind(draw.objective, draw.source) in named
    for samples in range(0, start + 50, 7):
        assert sum(mixture.rows(samples).values()) == samples


def test_it_is_sent_to_a_worker_as_its_eras() -> None:
    text = {f"s{i}": 1.0 for i in range(50)} | {"up": ramp(0.0, 1.0, 0, 2 * 10**8)}
    for settled in (False, True):
        mixture = Mixture([era(text)], settled=settled)
        sent = pickle.dumps(mixture)
        assert len(sent) < 20_000
        copy = pickle.loads(sent)
        for sample in (0, 777, 10**8):
            assert copy.locate(sample) == mixture.locate(sample)
        assert copy.rows(5000) == mixture.rows(5000)
        assert copy.kinds == mixture.kinds


def test_the_settled_mixture_is_that_after_the_last_ramp_of_the_last_era() -> None:
    last = era({"t": 1.0}, {"i": 1.0}, instruction=ramp(1.0, 0.0, 0, 1000), mask=0.0, start=70)
    eras = [era({"other": 1.0}), last]
    assert Mixture(eras).locate(0).source == "other"
    settled = Mixture(eras, settled=True)
    assert [settled.locate(sample) for sample in range(3)] == [Draw("gmask", "t", n) for n in range(3)]
    assert settled.kinds == (Kind("gmask", "t"),)


def test_kinds_are_those_that_have_a_share_at_some_time() -> None:
    first = era({"a": 1.0, "b": 0.0, "late": ramp(0.0, 1.0, 500, 10)}, {"i": 1.0}, mask=0.0)
    assert set(Mixture([first]).kinds) == {Kind("gmask", "a"), Kind("gmask", "late")}
    second = era({"a": 1.0}, mask=0.0, smask=0.5, start=100)  # before the late source begins
    assert set(Mixture([first, second]).kinds) == {Kind("gmask", "a"), Kind("smask", "a")}


def test_without_a_share_there_is_no_mixture() -> None:
    for empty in (era({}), era({"a": 0.0})):
        with pytest.raises(ValueError, match="no source has a share"):
            Mixture([empty])
