"""Multi-task instructions as blank filling: a prompt, its [MASK], and the answer (GLM-130B paper, section 2.2)."""

from typing import Literal

import numpy as np

from glm130b.data.blank_infilling import fill_sample
from glm130b.data.row import BoolArray, Int64Array
from glm130b.data.sample import Sample
from glm130b.data.special_tokens import SpecialTokens

TargetPositions = Literal["after_mask", "from_mask", "at_mask"]
"""Where the answer to an appended [MASK] stands: counting on after it (GLM-130B), counting on from its own position, or
all at it (with two-dimensional positions)."""


def instruction_sample(
    prompt: Int64Array,
    answer: Int64Array,
    *,
    slot_tokens: int,
    special: SpecialTokens,
    target_positions: TargetPositions = "after_mask",
) -> Sample:
    """Prompt, [MASK], and as the target the answer, closed by [eop]; at most ``slot_tokens`` long.

    A prompt with a [MASK] of its own gets no other, and the target stays at the position of the first whatever
    ``target_positions`` says.

    Where they do not fit, the prompt keeps its head, down to a quarter of the slot; only then is the end of the
    answer cut.
    """
    for own_tokens in (1, 2):  # [sop] alone if the prompt brings its [MASK], else both
        head = prompt[: max(slot_tokens // 4, slot_tokens - own_tokens - len(answer))]
        if has_blank := bool((head == special.mask).any()):
            break
    context = head if has_blank else np.concatenate((head, [special.mask]))
    answer = answer[: slot_tokens - len(context) - 1]
    blank = int(np.flatnonzero(context == special.mask)[0])
    if has_blank or target_positions == "at_mask":
        positions = np.full(len(answer) + 1, blank)
    else:
        first = blank + (target_positions == "after_mask")
        positions = np.arange(first, first + len(answer) + 1)
    return fill_sample(context, answer, special=special, target_positions=positions)


def is_answer_cut(prompt_lengths: Int64Array, answer_lengths: Int64Array, *, slot_tokens: int) -> BoolArray:
    """Whether ``instruction_sample`` cuts the answer; for pairs of these lengths whose [MASK] is appended."""
    return np.minimum(prompt_lengths, slot_tokens // 4) + 2 + answer_lengths > slot_tokens
