"""Micro-batches between forward and backward."""

import pytest

from glm130b.plan.in_flight import holdings, peak


@pytest.mark.parametrize(("stage", "micro_batches", "held"), [(0, 176, 8), (3, 176, 5), (7, 176, 1), (0, 4, 4)])
def test_a_stage_holds_as_many_as_there_are_stages_from_it_on(stage: int, micro_batches: int, held: int) -> None:
    assert holdings(stage=stage, stages=8, virtual_stages=1, micro_batches=micro_batches) == ((held,),)


def test_chunks_that_take_turns_hold_more() -> None:
    """2 (p - 1 - stage) + (v - 1) p chunks ahead and the one being run: 11 of two chunks on the first of 4 stages."""
    first = holdings(stage=0, stages=4, virtual_stages=2, micro_batches=16)
    last = holdings(stage=3, stages=4, virtual_stages=2, micro_batches=16)
    assert max(map(sum, first)) == 11
    assert max(map(sum, last)) == 5
    assert max(held for held, _ in first) == 8
    assert max(held for _, held in last) == 1


def test_more_micro_batches_hold_no_more() -> None:
    few, many = (holdings(stage=0, stages=4, virtual_stages=3, micro_batches=count) for count in (16, 160))
    assert set(few) == set(many)


def test_the_peak_weighs_chunks() -> None:
    assert peak([(3, 1), (2, 2)], (10, 1)) == 31
    assert peak([(3, 1), (2, 2)], (1, 10)) == 22
