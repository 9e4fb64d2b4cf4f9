"""Packing: slots, padding, and no cutting."""

import numpy as np
import pytest

from glm130b.data.blank_infilling import mask_sample
from glm130b.data.packing import pack
from glm130b.data.row import Segment
from glm130b.data.special_tokens import SpecialTokens

SPECIAL = SpecialTokens.after(100)


def test_samples_start_at_their_slots_and_padding_is_zero() -> None:
    samples = [mask_sample(np.arange(1, 1 + n), spans=[(1, 2)], order=[0], special=SPECIAL) for n in (4, 6, 2)]
    row = pack(samples, slot_tokens=9, objective="mask", source="text")
    assert row.segments == (Segment(0, 4, 2), Segment(9, 6, 2), Segment(18, 2, 2))
    inside = np.zeros(27, np.bool_)
    for sample, segment in zip(samples, row.segments, strict=True):
        inside[segment.start : segment.end] = True
        for name in ("tokens", "targets", "loss_mask", "positions", "block_positions"):
            part = getattr(row, name)[segment.start : segment.end]
            assert np.array_equal(part, getattr(sample, name))
    for name in ("tokens", "targets", "loss_mask", "positions", "block_positions"):
        assert not getattr(row, name)[~inside].any()
        assert getattr(row, name).dtype == (np.bool_ if name == "loss_mask" else np.int64)


def test_a_sample_longer_than_its_slot_is_an_error_wherever_it_stands() -> None:
    long, short = (mask_sample(np.arange(n), spans=[], order=[], special=SPECIAL) for n in (10, 3))
    for samples in ([long, short], [short, long]):
        with pytest.raises(ValueError, match="a sample of 10 tokens does not fit a slot of 9"):
            pack(samples, slot_tokens=9, objective="mask", source="text")
