"""Objectives follow the draws of their source."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from glm130b.data.mixing.due import SAMPLE, Due
from glm130b.data.mixing.split import ObjectiveSplit, Split

parts = st.tuples(*[st.integers(0, 20)] * 3).filter(any)


def objectives(*columns: tuple[int, ...]) -> dict[str, list[int]]:
    """Shares in proportion to the numbers, from each knot on."""
    exact = [[one * SAMPLE // sum(column) for one in column] for column in columns]
    for column in exact:
        column[column.index(max(column))] += SAMPLE - sum(column)
    return {name: [column[i] for column in exact] for i, name in enumerate(("gmask", "mask", "smask"))}


@given(parts, st.floats(0, 0.999))
def test_each_objective_keeps_its_share_of_the_draws(column: tuple[int, ...], phase: float) -> None:
    shares = objectives(column)
    split = ObjectiveSplit(0, Due([0], [SAMPLE // 3]), shares, phase=phase)
    counts = Counter[str]()
    bounds = {"gmask": 1.0, "mask": 1.5, "smask": 1.5} if column[1] and column[2] else dict.fromkeys(shares, 1.0)
    for draw in range(300):
        counts[split.objective(draw)] += 1
        assert split.counts(draw + 1) == {name: counts[name] for name in shares}
        for name, (share,) in shares.items():
            assert abs(counts[name] - (draw + 1) * share / SAMPLE) <= bounds[name] + 1e-9


@given(parts, parts, parts, st.integers(0, 80))
def test_a_new_era_goes_on_from_the_draws_before(
    first: tuple[int, ...], second: tuple[int, ...], third: tuple[int, ...], draws: int
) -> None:
    """The shares change where the source is due 25 draws, and again with the era, at any draw."""
    due = Due([0, 100], [SAMPLE // 4, SAMPLE // 2])
    earlier = ObjectiveSplit(0, due, objectives(first, second), phase=0.3)
    later = ObjectiveSplit(draws, Due([170], [SAMPLE]), objectives(third), phase=0.3, before=earlier)
    assert later.counts(draws) == earlier.counts(draws)
    owed = Counter[str]()
    counts = Counter[str]()
    for draw in range(150):
        counts[(earlier if draw < draws else later).objective(draw)] += 1
        column = third if draw >= draws else second if draw >= 25 else first
        for name, part in zip(("gmask", "mask", "smask"), column, strict=True):
            owed[name] += part / sum(column)  # type: ignore[assignment]
        assert all(abs(counts[name] - owed[name]) < 1.5 + 1e-9 for name in owed)


def test_a_phase_of_a_half_rounds_to_the_nearest() -> None:
    split = Split([0], [SAMPLE // 4], phase=0.5)
    assert [split.num_left(draws) for draws in range(9)] == [0, 0, 1, 1, 1, 1, 2, 2, 2]


def test_a_draw_after_the_end_of_its_source_has_the_objective_of_its_last_ones() -> None:
    split = ObjectiveSplit(0, Due([0, 10], [SAMPLE // 2, 0]), objectives((0, 1, 0), (1, 0, 0)), phase=0.5)
    assert [split.objective(draw) for draw in (4, 5)] == ["mask", "mask"]


def test_the_last_draw_that_is_not_gmask_has_an_objective_that_had_a_share() -> None:
    """The draw 5 is due half a [sMASK] and half a [gMASK], which its phase leaves out."""
    due = Due([0, 11], [SAMPLE // 2, SAMPLE // 2])
    split = ObjectiveSplit(0, due, objectives((0, 0, 1), (1, 0, 0)), phase=0.3)
    assert [split.objective(draw) for draw in range(4, 8)] == ["smask", "smask", "gmask", "gmask"]
