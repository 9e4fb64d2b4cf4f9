"""Each source is within one sample of its due for every n, and any sample can be asked for alone."""

import pickle
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.data.mixing.apportionment import Apportionment
from glm130b.data.mixing.due import SAMPLE, Due
from tests.unit.data.mixing.eras import weights


class Plan(NamedTuple):
    """Dues of some eras, and up to which sample to look."""

    eras: list[list[Due]]
    samples: int


def era_of(knots: list[int], columns: list[list[float]]) -> list[Due]:
    """Dues of an era; ``columns[k]`` are the sources' weights from ``knots[k]`` on."""
    shares = []
    for column in columns:
        exact = [int(weight / sum(column) * SAMPLE) for weight in column]
        exact[exact.index(max(exact))] += SAMPLE - sum(exact)
        shares.append(exact)
    return [Due(knots, list(source)) for source in zip(*shares, strict=True)]


@st.composite
def plans(draw: st.DrawFn, num_eras: int = 1) -> Plan:
    """Up to twelve sources that begin, end, stay equal, or change by orders of magnitude, at knots close together."""
    num_sources = draw(st.integers(1, 12))
    gaps = st.lists(st.integers(1, 40), min_size=num_eras, max_size=num_eras)
    eras = []
    for first in accumulate(draw(gaps)[1:], initial=0):
        steps = draw(st.lists(st.integers(1, 40), max_size=4))
        knots = list(accumulate(steps, initial=first))
        column = st.lists(weights, min_size=num_sources, max_size=num_sources)
        columns = draw(st.lists(column, min_size=len(knots), max_size=len(knots)))
        if draw(st.booleans()):
            columns = [[1.0] * num_sources] * len(knots)  # equal shares fall due together
        lives = [sorted(draw(st.tuples(*[st.integers(0, len(knots))] * 2))) for _ in range(num_sources - 1)]
        alive = [[1, *(start <= piece < end for start, end in lives)] for piece in range(len(knots))]
        eras.append(
            era_of(knots, [[w * a for w, a in zip(*both, strict=True)] for both in zip(columns, alive, strict=True)])
        )
    return Plan(eras, eras[-1][0].knots[-1] + 60)


def sequence(plan: Plan) -> list[tuple[int, int]]:
    apportionment = Apportionment(plan.eras)
    return [apportionment.locate(sample) for sample in range(plan.samples)]


def counts_of(drawn: list[tuple[int, int]], num_sources: int) -> list[list[int]]:
    """How many of the first 0, 1, .. samples each source had, from the sources alone."""
    counts = [[0] * num_sources]
    for source, _ in drawn:
        counts.append([*counts[-1][:source], counts[-1][source] + 1, *counts[-1][source + 1 :]])
    return counts


def largest_distance(plan: Plan) -> Fraction:
    """The most that a source is ever off what it was due, all eras together; exact, as floats round it to 1."""
    counts, due, largest = counts_of(sequence(plan), len(plan.eras[0])), [0] * len(plan.eras[0]), 0
    for sample in range(plan.samples):
        era = max((era for era in plan.eras if era[0].knots[0] <= sample), key=lambda era: era[0].knots[0])
        due = [before + one.total(sample + 1) - one.total(sample) for before, one in zip(due, era, strict=True)]
        off = (abs(count * SAMPLE - one) for count, one in zip(counts[sample + 1], due, strict=True))
        largest = max(largest, *off)
    return Fraction(largest, SAMPLE)


@settings(deadline=None, max_examples=150)
@given(plans())
def test_within_an_era_no_source_is_a_sample_off_its_due(plan: Plan) -> None:
    assert largest_distance(plan) < 1


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3).flatmap(plans), st.data())
def test_a_sample_alone_is_what_it_is_in_the_sequence(plan: Plan, data: st.DataObject) -> None:
    drawn = sequence(plan)
    counts = counts_of(drawn, len(plan.eras[0]))
    for sample in data.draw(st.lists(st.integers(0, plan.samples - 1), min_size=1, max_size=8)):
        alone = Apportionment(plan.eras)
        # Behind the blocks, which begin at a multiple of 4096: the state that is found for the very sample.
        assert alone._chapters_up_to(sample)[-1].counts_at(sample) == counts[sample]
        assert alone.locate(sample) == drawn[sample]
        assert drawn[sample][1] == counts[sample][drawn[sample][0]]


@pytest.mark.parametrize("column", [[1.0] * 9, [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [30.0, *[1.0] * 20]])
def test_the_state_is_found_from_a_start_in_the_middle(column: list[float]) -> None:
    eras = [era_of([0], [column])]
    counts = counts_of(sequence(Plan(eras, 600)), len(column))
    chapter = Apportionment(eras)._chapters_up_to(0)[0]
    assert [chapter.counts_at(samples) for samples in range(600)] == counts[:600]


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 4).flatmap(plans))
def test_a_new_era_leaves_the_past_and_takes_over_what_is_due(plan: Plan) -> None:
    start = plan.eras[-1][0].knots[0]
    assert sequence(plan)[:start] == sequence(Plan(plan.eras[:-1], start))
    assert largest_distance(plan) < len(plan.eras)


def test_eras_of_four_sources_keep_the_bound() -> None:
    columns = ([0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.7, 0.01, 0.19, 0.1], [0.2, 0.5, 0.2, 0.1])
    for shift in range(40):
        eras = [era_of([number * 37 + (number > 0) * shift], [column]) for number, column in enumerate(columns)]
        assert largest_distance(Plan(eras, 300)) < 1


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 4).flatmap(plans))
def test_from_its_first_sample_an_era_draws_only_what_has_a_share_in_it(plan: Plan) -> None:
    sources = [source for source, _ in sequence(plan)]
    firsts = [era[0].knots[0] for era in plan.eras]
    for era, first, end in zip(plan.eras, firsts, (*firsts[1:], plan.samples), strict=True):
        assert all(any(era[source].shares) for source in sources[first:end])


@pytest.mark.parametrize("num_sources", range(2, 9))
@pytest.mark.parametrize("start", [1, 2, 3, 5, 8])
def test_sources_dropped_at_any_moment_are_not_drawn_again(num_sources: int, start: int) -> None:
    """Four equal sources of which two end at sample 2 owe these a unit, if they go on to be counted."""
    for num_kept in range(1, num_sources):
        for kept in (range(num_kept), range(num_sources - num_kept, num_sources)):
            after = [float(source in kept) for source in range(num_sources)]
            plan = Plan([era_of([0], [[1.0] * num_sources]), era_of([start], [after])], start + 30)
            assert {source for source, _ in sequence(plan)[start:]} <= set(kept)
            assert largest_distance(plan) < 2


def test_a_source_dropped_with_an_era_is_not_owed_what_another_lacks_at_its_end() -> None:
    """Two halves end with the era, and another four within the next one: what all of them lack is whole samples."""
    eras = [
        era_of([0], [[1.0] * 12]),
        era_of([6, 7], [[0.0] * 6 + [1.0] * 6, [0.0] * 10 + [1.0] * 2]),
    ]
    sources = [source for source, _ in sequence(Plan(eras, 100))]
    assert all(source >= 6 for source in sources[6:])


def test_counts_at_places_far_apart_are_kept_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    apportionment = Apportionment([era_of([0], [[0.5, 0.3, 0.2]])])
    places = range(0, 10**6, 10**5)
    counts = [apportionment.counts(place) for place in places]
    monkeypatch.setattr(Apportionment, "_drawn", lambda *_: pytest.fail("drawn once more"))
    for _ in range(2):
        assert [apportionment.counts(place) for place in places] == counts


def test_a_change_that_no_order_survives_is_written_off() -> None:
    """Six sources are due half a sample each, three had one and end; the others fall due within two samples."""
    eras = [era_of([0], [[1.0] * 6]), era_of([3], [[0.0] * 3 + [1.0] * 3])]
    plan = Plan(eras, 60)
    assert 1 < largest_distance(plan) < 1.5
    # The dues without what is written off are kept.
    counts, chapter = counts_of(sequence(plan), 6), Apportionment(eras)._chapters_up_to(3)[-1]
    for sample in range(3, 60):
        for count, due in zip(counts[sample], chapter.dues, strict=True):
            assert abs(count * SAMPLE - due.total(sample)) < SAMPLE


def test_sources_that_end_are_given_what_they_lack() -> None:
    """Eight sources end with half a sample each; the other eight, more urgent, had all eight: four are made good."""
    plan = Plan([era_of([0, 8], [[1.0] * 16, [0.0] * 8 + [1.0] * 8])], 300)
    sources = [source for source, _ in sequence(plan)]
    assert set(sources[:8]) == set(range(8, 16))
    assert [source for source in sources if source < 8] == [0, 1, 2, 3]
    assert largest_distance(plan) < 1


@pytest.mark.parametrize("samples", [10**6 - 1, 2 * 10**8])
def test_far_samples_are_found_from_a_little_before(samples: int) -> None:
    era = era_of([0], [[0.7, 0.25, 0.0499, 0.0001]])
    found = Apportionment([era]).counts(samples)
    assert sum(found) == samples
    for count, due in zip(found, era, strict=True):
        assert abs(count * SAMPLE - due.total(samples)) < SAMPLE
    if samples < 10**7:
        counts = [0] * 4
        Apportionment([era])._chapters_up_to(0)[0].draw(0, samples, counts)
        assert counts == found


def test_it_can_be_sent_to_another_process() -> None:
    apportionment = Apportionment([era_of([0, 500], [[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])])
    drawn = [apportionment.locate(sample) for sample in range(4000, 4200)]
    copy = pickle.loads(pickle.dumps(apportionment))
    assert [copy.locate(sample) for sample in range(4000, 4200)] == drawn


@given(plans(), st.integers(0, 30))
def test_release_and_deadline_are_where_the_due_crosses_whole_samples(plan: Plan, unit: int) -> None:
    for due in plan.eras[0]:
        totals = [due.total(sample) for sample in range(plan.samples + 1)]
        released = [n for n, (_, after) in enumerate(pairwise(totals)) if after > unit * SAMPLE]
        in_time = [n for n, (before, _) in enumerate(pairwise(totals)) if before < (unit + 1) * SAMPLE]
        if released:
            assert due.release(unit) == released[0]
        if len(in_time) < plan.samples:
            assert due.deadline(unit) == in_time[-1]
