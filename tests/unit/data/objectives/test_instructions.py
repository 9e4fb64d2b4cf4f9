"""Instruction samples agree with the original where it cuts no answer; the answer is always whole."""

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm130b.data.objectives.instructions import instruction_sample, tokens_taken
from glm130b.data.tokenizers.special_tokens import SpecialTokens
from tests.unit.data.objectives.test_blank_infilling import reference

SPECIAL = SpecialTokens.after(100)
Keep = Literal["head", "tail"]
tokens = st.lists(st.integers(1, 90), min_size=1, max_size=100)


def taken(prompt: int, answer: int, **layout: Any) -> int:
    return int(tokens_taken(np.array([prompt]), np.array([answer]), **layout)[0])


@pytest.mark.parametrize("index", [0, 1])
def test_every_vector_of_the_original_that_cuts_no_answer(index: int) -> None:
    """The original cuts the third answer of four, which ours never does: there, what it kept begins our answer."""
    special, vectors = reference("instruction")
    vector = vectors[index]
    unified = "unified_multitask_encoding" in vector["params"]
    slot_tokens = vector["params"]["max_seq_length"] // vector["params"]["aggregated_samples_per_sequence"]
    for slot, (prompt, answer) in enumerate(zip(vector["texts"], vector["targets_in"], strict=True)):
        room = taken(len(prompt), len(answer), packing="fixed", slot_tokens=slot_tokens, row_tokens=64)
        assert room == (2 * slot_tokens if slot == 2 else slot_tokens)
        sample = instruction_sample(
            np.array(prompt),
            np.array(answer),
            slot_tokens=room,
            special=special,
            target_positions="from_mask" if unified else "after_mask",
        )
        length = min(len(sample), slot_tokens)
        theirs = slice(slot * slot_tokens, slot * slot_tokens + length)
        targets = slice(theirs.start, theirs.stop - 1) if slot == 2 else theirs  # theirs ends the cut answer by [eop]
        assert sample.tokens[:length].tolist() == vector["tokens"][theirs]
        assert sample.targets[: targets.stop - targets.start].tolist() == vector["targets"][targets]
        assert sample.loss_mask[:length].astype(int).tolist() == vector["loss_masks"][theirs]
        assert sample.positions[:length].tolist() == vector["position_ids"][theirs]
        assert sample.context_length == vector["division"][slot]


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


@pytest.mark.parametrize(
    ("blank", "keep", "window"),
    [
        (3, "head", (0, 13)),
        (12, "head", (0, 13)),
        (13, "head", (7, 20)),
        (20, "head", (14, 27)),
        (29, "head", (17, 30)),
        (29, "tail", (17, 30)),
        (17, "tail", (17, 30)),
        (16, "tail", (10, 23)),
        (2, "tail", (0, 13)),
    ],
)
def test_a_blank_that_the_cut_would_drop_keeps_the_text_around_it(
    blank: int, keep: Keep, window: tuple[int, int]
) -> None:
    prompt = np.arange(1, 31)
    prompt[blank] = SPECIAL.mask
    sample = instruction_sample(prompt, np.array([40, 41]), slot_tokens=16, special=SPECIAL, long_prompts_keep=keep)
    assert sample.tokens.tolist() == [*prompt[slice(*window)], SPECIAL.sop, 40, 41]
    assert sample.positions[sample.loss_mask].tolist() == [blank - window[0]] * 3


def test_the_answer_belongs_to_the_first_blank_of_a_prompt_that_is_cut() -> None:
    prompt = np.arange(1, 31)
    prompt[[2, 28]] = SPECIAL.mask
    sample = instruction_sample(prompt, np.array([40]), slot_tokens=10, special=SPECIAL, long_prompts_keep="tail")
    assert sample.tokens.tolist() == [1, 2, SPECIAL.mask, 4, 5, 6, 7, 8, SPECIAL.sop, 40]


@given(tokens, tokens, st.integers(4, 64), st.sampled_from(["head", "tail"]), st.sampled_from(["fixed", "greedy"]))
def test_the_answer_is_whole_and_the_prompt_gives_way(
    prompt: list[int], answer: list[int], slot_tokens: int, keep: Keep, packing: Literal["fixed", "greedy"]
) -> None:
    row_tokens = 4 * slot_tokens
    room = taken(len(prompt), len(answer), packing=packing, slot_tokens=slot_tokens, row_tokens=row_tokens)
    least = min(len(prompt), slot_tokens // 4) + 2 + len(answer)
    assert (room == 0) == (least > row_tokens)
    if not room:
        return
    assert least <= room <= row_tokens
    assert packing == "greedy" or (room % slot_tokens == 0 and room - slot_tokens < least)
    sample = instruction_sample(
        np.array(prompt), np.array(answer), slot_tokens=room, special=SPECIAL, long_prompts_keep=keep
    )
    assert sample.targets[sample.loss_mask].tolist() == [*answer, SPECIAL.eop]
    assert sample.tokens[sample.context_length :].tolist() == [SPECIAL.sop, *answer]
    kept = sample.tokens[: sample.context_length - 1].tolist()
    assert sample.tokens[len(kept)] == SPECIAL.mask
    assert kept == (prompt[: len(kept)] if keep == "head" else prompt[len(prompt) - len(kept) :])
    assert len(kept) >= min(len(prompt), slot_tokens // 4)
    if len(kept) < len(prompt):
        assert len(sample) == room  # nothing is cut before the room is full
    if packing == "greedy":
        assert len(sample) == room


@given(tokens, tokens, st.integers(0, 99), st.integers(1, 60), st.sampled_from(["head", "tail"]))
def test_a_blank_is_always_kept_and_is_where_the_answer_stands(
    prompt: list[int], answer: list[int], blank: int, room: int, keep: Keep
) -> None:
    prompt[blank % len(prompt)] = SPECIAL.mask
    slot_tokens = len(answer) + 1 + room
    sample = instruction_sample(
        np.array(prompt), np.array(answer), slot_tokens=slot_tokens, special=SPECIAL, long_prompts_keep=keep
    )
    context = sample.tokens[: sample.context_length].tolist()
    assert len(context) == min(room, len(prompt))
    assert context.count(SPECIAL.mask) == 1
    assert set(sample.positions[sample.loss_mask].tolist()) == {context.index(SPECIAL.mask)}
    assert sample.targets[sample.loss_mask].tolist() == [*answer, SPECIAL.eop]
    assert "".join(map(chr, context)) in "".join(map(chr, prompt))


def test_an_answer_without_room_for_its_blank_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"an answer of 15 tokens does not fit 16 with its \[MASK\] and \[sop\]"):
        instruction_sample(np.array([1]), np.arange(15), slot_tokens=16, special=SPECIAL)
