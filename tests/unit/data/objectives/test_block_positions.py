"""Two-dimensional positions (GLM paper, section 2.2.1): whatever is blanked, a target's first row stands at its blank,
its second row counts inside the blank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm130b.data.arrays import Int64Array
from glm130b.data.objectives.instructions import instruction_sample
from tests.unit.data.objectives.rows import NUMBERS, text_rows, words

SPECIAL = NUMBERS.special


def assert_stand_at_their_blanks(
    tokens: Int64Array, positions: Int64Array, block_positions: Int64Array, context_length: int
) -> None:
    """Of one sample."""
    assert positions[:context_length].tolist() == list(range(context_length))
    assert not block_positions[:context_length].any()
    blanks = np.flatnonzero(np.isin(tokens[:context_length], [SPECIAL.mask, SPECIAL.gmask, SPECIAL.smask])).tolist()
    openings = context_length + np.flatnonzero(tokens[context_length:] == SPECIAL.sop)
    filled = []
    for target in np.split(np.arange(len(tokens)), openings)[1:]:
        (position,) = set(positions[target].tolist())
        filled.append(position)
        assert block_positions[target].tolist() == list(range(1, len(target) + 1))
    assert sorted(filled) == blanks
    pairs = list(zip(positions.tolist(), block_positions.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)  # both rows together tell every token apart


@pytest.mark.parametrize("objective", ["mask", "smask", "gmask"])
@pytest.mark.parametrize("document_tokens", [5, 70, 3000])
def test_targets_of_a_text_stand_at_their_blank(objective: str, document_tokens: int) -> None:
    rows = text_rows(words(*[document_tokens] * (6000 // document_tokens)), model={"positions": "rope_2d"})
    for ordinal in range(10):
        row = rows.row(objective, ordinal)
        inside = np.zeros(len(row.tokens), np.bool_)
        for segment in row.segments:
            at = slice(segment.start, segment.end)
            inside[at] = True
            assert_stand_at_their_blanks(
                row.tokens[at], row.positions[at], row.block_positions[at], segment.context_length
            )
        assert not row.positions[~inside].any()
        assert not row.block_positions[~inside].any()


@given(
    st.lists(st.sampled_from([1, 2, 3, SPECIAL.mask]), min_size=1, max_size=40),
    st.lists(st.integers(1, 90), min_size=1, max_size=40),
)
def test_the_answer_to_an_instruction_stands_at_its_blank(prompt: list[int], answer: list[int]) -> None:
    """Of a prompt without a [MASK] of its own, or with one."""
    once = [token for at, token in enumerate(prompt) if token != SPECIAL.mask or SPECIAL.mask not in prompt[:at]]
    sample = instruction_sample(
        np.array(once), np.array(answer), slot_tokens=64, special=SPECIAL, target_positions="at_mask"
    )
    assert_stand_at_their_blanks(sample.tokens, sample.positions, sample.block_positions, sample.context_length)
