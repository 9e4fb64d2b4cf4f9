"""Instruction samples agree with the original, and long pairs are cut by the rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.data.instructions import instruction_sample, is_answer_cut
from glm130b.data.packing import pack
from glm130b.data.row import Segment
from glm130b.data.special_tokens import SpecialTokens
from tests.unit.data.test_blank_infilling import reference

SPECIAL = SpecialTokens.after(100)


@pytest.mark.parametrize("index", [0, 1])
def test_every_vector_of_the_original(index: int) -> None:
    special, vectors = reference("instruction")
    vector = vectors[index]
    slot_tokens = vector["params"]["max_seq_length"] // vector["params"]["aggregated_samples_per_sequence"]
    samples = [
        instruction_sample(
            np.array(prompt),
            np.array(answer),
            slot_tokens=slot_tokens,
            special=special,
            target_positions="from_mask" if "unified_multitask_encoding" in vector["params"] else "after_mask",
        )
        for prompt, answer in zip(vector["texts"], vector["targets_in"], strict=True)
    ]
    row = pack(samples, slot_tokens=slot_tokens, objective="instruction", source="reference")
    assert row.tokens.tolist() == vector["tokens"]
    assert row.targets.tolist() == vector["targets"]
    assert row.loss_mask.astype(int).tolist() == vector["loss_masks"]
    assert [segment.context_length for segment in row.segments] == vector["division"]
    # The first vector counts positions through the padding, which nothing reads; ours are 0 there.
    inside = [token for segment in row.segments for token in range(segment.start, segment.end)]
    assert row.positions[inside].tolist() == [vector["position_ids"][token] for token in inside]


def test_a_short_pair() -> None:
    sample = instruction_sample(np.array([1, 2, 3]), np.array([4, 5]), slot_tokens=16, special=SPECIAL)
    assert sample.tokens.tolist() == [1, 2, 3, SPECIAL.mask, SPECIAL.sop, 4, 5]
    assert sample.targets[sample.loss_mask].tolist() == [4, 5, SPECIAL.eop]
    assert sample.positions.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert sample.block_positions.tolist() == [0, 0, 0, 0, 1, 2, 3]


def test_a_blank_inside_the_prompt_is_the_only_one() -> None:
    prompt = np.array([1, SPECIAL.mask, 2, SPECIAL.mask])
    sample = instruction_sample(prompt, np.array([4, 5]), slot_tokens=16, special=SPECIAL)
    assert sample.tokens.tolist() == [1, SPECIAL.mask, 2, SPECIAL.mask, SPECIAL.sop, 4, 5]
    assert sample.positions.tolist() == [0, 1, 2, 3, 1, 1, 1]
    assert sample.block_positions.tolist() == [0, 0, 0, 0, 1, 2, 3]


def test_a_prompt_with_a_blank_is_not_cut_where_it_just_fits() -> None:
    prompt = np.array([1, SPECIAL.mask, *range(2, 14)])
    sample = instruction_sample(prompt, np.array([20]), slot_tokens=16, special=SPECIAL)
    assert sample.tokens.tolist() == [*prompt, SPECIAL.sop, 20]


def test_a_blank_in_the_part_that_is_cut_is_replaced() -> None:
    prompt = np.array([*range(1, 30), SPECIAL.mask])
    sample = instruction_sample(prompt, np.array([40, 41]), slot_tokens=16, special=SPECIAL)
    assert sample.tokens.tolist() == [*range(1, 13), SPECIAL.mask, SPECIAL.sop, 40, 41]
    assert sample.positions.tolist() == list(range(16))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.integers(4, 64), st.integers(1, 100), st.integers(1, 100))
def test_cuts_follow_the_rule_and_are_counted(slot_tokens: int, prompt_length: int, answer_length: int) -> None:
    prompt, answer = np.arange(1, prompt_length + 1) % 90, np.arange(1, answer_length + 1) % 90
    sample = instruction_sample(prompt, answer, slot_tokens=slot_tokens, special=SPECIAL)
    assert len(sample) <= slot_tokens
    kept_prompt, kept_answer = sample.context_length - 1, len(sample) - sample.context_length - 1
    assert sample.tokens[:kept_prompt].tolist() == prompt[:kept_prompt].tolist()
    assert sample.targets[sample.context_length : -1].tolist() == answer[:kept_answer].tolist()
    assert sample.targets[-1] == SPECIAL.eop
    assert kept_prompt >= min(prompt_length, slot_tokens // 4)
    is_cut = bool(is_answer_cut(np.array([prompt_length]), np.array([answer_length]), slot_tokens=slot_tokens)[0])
    assert is_cut == (kept_answer < answer_length)
    if kept_prompt < prompt_length or is_cut:
        assert len(sample) == slot_tokens  # nothing is cut before the slot is full
    if is_cut:
        assert kept_prompt == min(prompt_length, slot_tokens // 4)


def test_segments_of_a_row() -> None:
    samples = [instruction_sample(np.arange(1, 4), np.arange(1, n), slot_tokens=8, special=SPECIAL) for n in (2, 3)]
    row = pack(samples, slot_tokens=8, objective="instruction", source="s")
    assert row.segments == (Segment(0, 4, 2), Segment(8, 4, 3))
