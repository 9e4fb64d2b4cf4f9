"""Cutting a row's slots: targets go, contexts stay, and a sample without a target is gone."""

import numpy as np

from glm130b.data.objectives.cutting import cut_slots
from glm130b.data.objectives.row import Origin, Row, Segment
from tests.unit.data.objectives.rows import lists


def row(slot_tokens: int, segments: list[Segment], num_slots: int) -> Row:
    """A row whose arrays are 0 outside its segments, else tell their tokens apart."""
    arrays = np.zeros((5, slot_tokens * num_slots), np.int64)
    for segment in segments:
        arrays[:4, segment.start : segment.end] = np.arange(1, 5)[:, None] * 100 + np.arange(segment.start, segment.end)
        arrays[4, segment.start + segment.context_length : segment.end] = 1
    origins = tuple(Origin(1000 * number, 7) for number in range(len(segments)))
    return Row(*arrays[:2], arrays[4].astype(np.bool_), *arrays[2:4], tuple(segments), "mask", "text", origins)


def test_slots_are_cut_at_their_end() -> None:
    whole = row(20, [Segment(0, 5, 3), Segment(20, 6, 8), Segment(40, 4, 2), Segment(46, 3, 5)], 3)
    cut = cut_slots(whole, wide=20, slot_tokens=12)
    assert cut.segments == (Segment(0, 5, 3), Segment(12, 6, 6), Segment(24, 4, 2), Segment(30, 3, 3))
    assert cut.origins == whole.origins
    for slot in range(3):
        kept, before = slice(slot * 12, slot * 12 + 12), slice(slot * 20, slot * 20 + 12)
        assert lists(cut, kept) == lists(whole, before)
    assert cut.loss_mask.dtype == np.bool_


def test_a_sample_without_a_target_is_gone() -> None:
    whole = row(20, [Segment(0, 4, 2), Segment(6, 6, 3), Segment(15, 1, 1), Segment(20, 5, 9)], 2)
    cut = cut_slots(whole, wide=20, slot_tokens=12)
    assert cut.segments == (Segment(0, 4, 2), Segment(12, 5, 7))
    assert cut.origins == (whole.origins[0], whole.origins[3])
    for values in lists(cut, slice(6, 12)).values():
        assert not any(values)
    assert lists(cut, slice(6)) == lists(whole, slice(6))
