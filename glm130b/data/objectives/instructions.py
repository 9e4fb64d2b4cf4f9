"""Multi-task instructions as blank filling: a prompt, its [MASK], and the answer (GLM-130B paper, section 2.2).

The answer is never cut. Where prompt and answer do not fit together it is the prompt that gives way, down to a quarter
of a slot; what then still does not fit takes more slots, and what does not fit a whole row is left out.
"""

from typing import Literal

import numpy as np

from glm130b.data.arrays import Int64Array
from glm130b.data.objectives.sample import Sample
from glm130b.data.tokenizers.special_tokens import SpecialTokens

TargetPositions = Literal["after_mask", "from_mask", "at_mask"]
"""Where the answer to an appended [MASK] stands: counting on after it (GLM-130B), counting on from its own position, or
all at it (with two-dimensional positions)."""

_OWN_TOKENS = 2
"""Tokens of a sample beside prompt and answer: [MASK] and [sop]."""


def tokens_taken(
    prompt_lengths: Int64Array,
    answer_lengths: Int64Array,
    *,
    packing: Literal["fixed", "greedy"],
    slot_tokens: int,
    row_tokens: int,
) -> Int64Array:
    """Tokens of a row that each pair takes; 0 for a pair that fits no row and is left out.

    ``fixed`` gives as many slots as the answer needs beside a quarter slot of its prompt, one for nearly every pair;
    ``greedy`` gives what prompt and answer need, up to a whole row.
    """
    least = np.minimum(prompt_lengths, slot_tokens // 4) + _OWN_TOKENS + answer_lengths
    if packing == "fixed":
        taken = -(-least // slot_tokens) * slot_tokens
    else:
        taken = np.minimum(prompt_lengths + _OWN_TOKENS + answer_lengths, row_tokens)
    return np.where(least <= row_tokens, taken, 0)


def instruction_sample(
    prompt: Int64Array,
    answer: Int64Array,
    *,
    slot_tokens: int,
    special: SpecialTokens,
    target_positions: TargetPositions = "after_mask",
    long_prompts_keep: Literal["head", "tail"] = "head",
) -> Sample:
    """Prompt, [MASK], and as the target the whole answer, closed by [eop]; at most ``slot_tokens`` long.

    A prompt with a [MASK] of its own gets no other, and the target stays at the position of the first whatever
    ``target_positions`` says. Raises ValueError if the answer leaves no room for a [MASK].
    """
    room = slot_tokens - 1 - len(answer)
    if room < 1:
        raise ValueError(f"an answer of {len(answer)} tokens does not fit {slot_tokens} with its [MASK] and [sop]")
    blanks = np.flatnonzero(prompt == special.mask)
    if len(blanks):
        start = _window_start(len(prompt), room, keep=long_prompts_keep, blank=int(blanks[0]))
        context, blank = prompt[start : start + room], int(blanks[0]) - start
    else:
        start = _window_start(len(prompt), room - 1, keep=long_prompts_keep)
        context, blank = np.concatenate((prompt[start : start + room - 1], [special.mask])), None
    tokens = np.concatenate((context, [special.sop], answer))
    split = len(context)
    targets, positions = tokens.copy(), np.arange(len(tokens))
    targets[split:-1], targets[-1] = answer, special.eop
    if blank is not None or target_positions == "at_mask":
        positions[split:] = split - 1 if blank is None else blank
    elif target_positions == "from_mask":
        positions[split:] -= 1
    block_positions, loss_mask = np.zeros(len(tokens), np.int64), np.zeros(len(tokens), np.bool_)
    block_positions[split:] = np.arange(1, len(answer) + 2)
    loss_mask[split:] = True
    return Sample(tokens, targets, loss_mask, positions, block_positions, split)


def _window_start(num_tokens: int, room: int, *, keep: Literal["head", "tail"], blank: int | None = None) -> int:
    """Where the ``room`` tokens that are kept begin: at the chosen end, or around a blank that this end lacks.

    Around it means in the middle, and nearer to an end of the prompt where there is no more text on that side.
    """
    last = max(0, num_tokens - room)
    start = 0 if keep == "head" else last
    if blank is not None and not start <= blank < start + room:
        start = min(max(0, blank - room // 2), last)
    return start
