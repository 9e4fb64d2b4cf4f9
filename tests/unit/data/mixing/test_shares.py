"""Shares of sources and objectives, and their staircase."""

from itertools import pairwise

import numpy as np
import pytest

from glm130b.data.mixing.due import SAMPLE
from glm130b.data.mixing.shares import Source, era_shares
from tests.unit.data.mixing.eras import era, ramp, shares_at


def test_shares_are_products_and_add_up_to_one_exactly() -> None:
    shares = era_shares(era({"a": 3.0, "b": 1.0}, {"i": 2.0, "j": 0.7}, instruction=0.05, mask=0.3, smask=0.1))
    assert shares.knots == (0,)
    assert shares.sources[Source("text", "a")][0] / SAMPLE == pytest.approx(0.95 * 0.75)
    assert shares.sources[Source("instructions", "i")][0] / SAMPLE == pytest.approx(0.05 * 2 / 2.7)
    assert [part[0] / SAMPLE for part in shares.objectives.values()] == pytest.approx([0.6, 0.3, 0.1])
    for dues in (shares.sources, shares.objectives):
        assert sum(due[0] for due in dues.values()) == SAMPLE


def test_settled_shares_are_those_after_all_ramps() -> None:
    late = era({"a": 1.0, "b": ramp(1.0, 0.0, 0, 0)}, {"i": 1.0}, instruction=ramp(0.0, 0.2, 50, 1000), start=20)
    shares = era_shares(late, settled=True)
    assert shares.knots == (0,)
    assert {source.name: due[0] / SAMPLE for source, due in shares.sources.items()} == pytest.approx(
        {"a": 0.8, "b": 0.0, "i": 0.2}
    )


def test_where_no_source_has_a_share_the_one_before_holds_on() -> None:
    shares = era_shares(era({"a": ramp(3.0, 0.0, 10, 0), "b": ramp(1.0, 0.0, 10, 0)}))
    assert {source.name: due for source, due in shares.sources.items()} == {
        "a": (SAMPLE * 3 // 4,) * 2,
        "b": (SAMPLE // 4,) * 2,
    }


@pytest.mark.parametrize("start", [0, 777])
def test_the_staircase_follows_every_ramp_to_an_eighth_of_a_sample(start: int) -> None:
    """Ramps count from the start of the run, also in an era that begins in their middle."""
    ramped = era(
        {"a": 1.0, "b": ramp(0.0, 3.0, 300, 1500)},
        {"i": 1.0, "j": ramp(5.0, 0.0, 1000, 0)},
        instruction=ramp(0.0, 0.4, 100, 2000),
        mask=ramp(0.9, 0.1, 700, 900),
        start=start,
    )
    shares = era_shares(ramped)
    assert shares.knots[0] == start
    for source, dues in shares.sources.items():
        due = stair = 0.0
        for (first, end), step in zip(pairwise((*shares.knots, 3000)), dues, strict=True):
            for sample in range(first, end):
                exact = shares_at(ramped, sample)
                due += sum(
                    share
                    for (objective, name), share in exact.items()
                    if (objective == "instruction", name) == (source.section == "instructions", source.name)
                )
                stair += step / SAMPLE
                assert abs(due - stair) < 1 / 8


@pytest.mark.parametrize("constant", [10.0, 1.0, 0.1, 0.01, 0.001, 1e-6, 1e-9])
@pytest.mark.parametrize("up", [True, False])
def test_a_weight_that_ramps_against_a_small_one_is_followed_to_a_quarter_of_a_sample(
    constant: float, up: bool
) -> None:
    """A weight ramps in a line, its share does not: near 0 it turns in a few thousand of a million samples."""
    length = 1_000_000
    shares = era_shares(era({"r": ramp(1.0 - up, float(up), 0, length), "c": constant}))
    knots = np.array([*shares.knots, length + 1])
    assert len(shares.knots) < 5000
    weight = np.arange(length + 1) / length if up else 1 - np.arange(length + 1) / length
    exact = np.cumsum(weight / (weight + constant))
    stairs = np.cumsum(np.repeat(np.array(shares.sources[Source("text", "r")]) / SAMPLE, np.diff(knots)))
    assert np.abs(stairs - exact).max() < 1 / 4
