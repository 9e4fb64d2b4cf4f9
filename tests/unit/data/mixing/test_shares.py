"""Shares of objectives and sources, and their staircase."""

from itertools import pairwise
from typing import Any

import pytest

from glm130b.config.sections import RunConfig
from glm130b.data.shares import SAMPLE, Kind, due_shares, shares_at
from tests.harness.synthetic import small_config


def constant(value: float) -> dict[str, float]:
    return {"start": value, "end": value}


def mixture_config(
    instruction: dict[str, Any], mask: dict[str, Any], text: list[dict[str, Any]], instructions: list[dict[str, Any]]
) -> RunConfig:
    """A config of nothing but a mixture; sources are called t0, t1.. and i0, i1.."""
    sources = {
        section: {f"{section[0]}{i}": {"path": "none", "weight": weight} for i, weight in enumerate(weights)}
        for section, weights in (("text", text), ("instructions", instructions))
    }
    return small_config(data=sources, objective={"instruction_share": instruction, "mask_share": mask})


def test_shares_are_products_and_add_up_to_one() -> None:
    config = mixture_config(constant(0.05), constant(0.3), [constant(3.0), constant(1.0)], [constant(2.0)])
    shares = shares_at(config, 0)
    assert shares[Kind("mask", "t0")] == pytest.approx(0.95 * 0.3 * 0.75)
    assert shares[Kind("gmask", "t1")] == pytest.approx(0.95 * 0.7 * 0.25)
    assert shares[Kind("instruction", "i0")] == pytest.approx(0.05)
    assert sum(shares.values()) == pytest.approx(1)


def test_a_constant_mixture_is_one_stretch() -> None:
    shares = due_shares(mixture_config(constant(0.25), constant(0.5), [constant(1.0)], [constant(1.0)]))
    assert shares.knots == (0,)
    assert shares.dues[Kind("instruction", "i0")] == (SAMPLE // 4,)


def test_kinds_without_a_share_are_left_out() -> None:
    shares = due_shares(mixture_config(constant(0.0), constant(1.0), [constant(1.0), constant(0.0)], [constant(1.0)]))
    assert set(shares.dues) == {Kind("mask", "t0")}


def test_settled_shares_are_those_after_all_ramps() -> None:
    ramp = {"start": 0.0, "end": 0.2, "from_samples": 50, "over_samples": 1000}
    config = mixture_config(ramp, constant(0.3), [constant(1.0), {"start": 1.0, "end": 0.0}], [constant(1.0)])
    shares = due_shares(config, settled=True)
    assert shares.knots == (0,)
    assert {kind: due[0] / SAMPLE for kind, due in shares.dues.items()} == pytest.approx(
        {Kind("gmask", "t0"): 0.8 * 0.7, Kind("mask", "t0"): 0.8 * 0.3, Kind("instruction", "i0"): 0.2}
    )


def test_the_staircase_follows_every_ramp_to_an_eighth_of_a_sample() -> None:
    config = mixture_config(
        {"start": 0.0, "end": 0.4, "from_samples": 100, "over_samples": 2000},
        {"start": 0.9, "end": 0.1, "from_samples": 700, "over_samples": 900},
        [constant(1.0), {"start": 0.0, "end": 3.0, "from_samples": 300, "over_samples": 1500}],
        [constant(1.0), {"start": 5.0, "end": 0.0, "from_samples": 1000, "over_samples": 0}],
    )
    shares = due_shares(config)
    for kind, dues in shares.dues.items():
        due = stair = 0.0
        for (start, end), step in zip(pairwise((*shares.knots, 3000)), dues, strict=True):
            for sample in range(start, end):
                due += shares_at(config, sample)[kind]
                stair += step / SAMPLE
                assert abs(due - stair) < 1 / 8
