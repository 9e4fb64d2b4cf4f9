"""Two-dimensional positions (GLM paper, section 2.2.1): whatever is blanked, a target's first row stands at its blank,
its second row counts inside the blank."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glm130b.data.blank_infilling import gmask_sample, mask_sample
from glm130b.data.instructions import instruction_sample
from glm130b.data.packing import pack
from glm130b.data.row import Row
from glm130b.data.sample import Sample
from glm130b.data.special_tokens import SpecialTokens

SPECIAL = SpecialTokens.after(100)
BLANKS = (SPECIAL.mask, SPECIAL.gmask)


@st.composite
def mask_samples(draw: st.DrawFn) -> Sample:
    """A text with any spans blanked, filled in any order."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=11))  # kept, blanked, kept, blanked, ..
    ends = np.cumsum(lengths).tolist()
    spans = list(zip(ends[0:-1:2], ends[1::2], strict=False))
    order = draw(st.permutations(range(len(spans))))
    return mask_sample(np.arange(ends[-1]), spans=spans, order=order, special=SPECIAL)


@st.composite
def gmask_samples(draw: st.DrawFn) -> Sample:
    text, end_of_piece = np.arange(draw(st.integers(1, 40))), draw(st.booleans())
    prefix = draw(st.integers(0, len(text) - 1))
    return gmask_sample(text, prefix_length=prefix, special=SPECIAL, end_of_piece=end_of_piece, constant_positions=True)


@st.composite
def instruction_samples(draw: st.DrawFn) -> Sample:
    """A prompt with or without a [MASK] of its own, which may fall to the cut."""
    prompt = draw(st.lists(st.sampled_from([1, 2, 3, SPECIAL.mask]), min_size=1, max_size=40).filter(at_most_one_mask))
    answer = draw(st.lists(st.integers(1, 90), min_size=1, max_size=40))
    return instruction_sample(
        np.array(prompt), np.array(answer), slot_tokens=64, special=SPECIAL, target_positions="at_mask"
    )


def at_most_one_mask(prompt: list[int]) -> bool:
    return prompt.count(SPECIAL.mask) <= 1


def rows(samples: st.SearchStrategy[Sample]) -> st.SearchStrategy[Row]:
    """One to four samples in a row, with padding behind each."""
    packed = st.lists(samples, min_size=1, max_size=4)
    return packed.map(lambda chosen: pack(chosen, slot_tokens=100, objective="any", source="any"))


@given(rows(st.one_of(mask_samples(), gmask_samples(), instruction_samples())))
def test_targets_stand_at_their_blank_and_count_inside_it(row: Row) -> None:
    inside = np.zeros(len(row.tokens), np.bool_)
    for segment in row.segments:
        split = segment.start + segment.context_length
        inside[segment.start : segment.end] = True
        assert row.positions[segment.start : split].tolist() == list(range(segment.context_length))
        assert not row.block_positions[segment.start : split].any()

        blanks = np.flatnonzero(np.isin(row.tokens[segment.start : split], BLANKS)).tolist()
        pieces = np.split(np.arange(split, segment.end), np.flatnonzero(row.tokens[split : segment.end] == SPECIAL.sop))
        filled = []
        for piece in pieces[1:]:
            (position,) = set(row.positions[piece].tolist())
            filled.append(position)
            assert row.block_positions[piece].tolist() == list(range(1, len(piece) + 1))
        assert sorted(filled) == blanks
    assert not row.positions[~inside].any()
    assert not row.block_positions[~inside].any()


@given(rows(mask_samples()))
def test_both_rows_together_tell_every_token_apart(row: Row) -> None:
    for segment in row.segments:
        inside = slice(segment.start, segment.end)
        pairs = list(zip(row.positions[inside].tolist(), row.block_positions[inside].tolist(), strict=True))
        assert len(set(pairs)) == len(pairs)
