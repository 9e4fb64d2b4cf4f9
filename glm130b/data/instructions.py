"""Multi-task instructions as blank filling: a prompt, its [MASK], and the answer (GLM-130B paper, section 2.2)."""

import numpy as np

from glm130b.data.blank_infilling import fill_sample
from glm130b.data.row import BoolArray, Int64Array
from glm130b.data.sample import Sample
from glm130b.data.special_tokens import SpecialTokens


def instruction_sample(
    prompt: Int64Array,
    answer: Int64Array,
    *,
    slot_tokens: int,
    special: SpecialTokens,
    targets_start_at_mask: bool = False,
) -> Sample:
    """Prompt, [MASK], and as the target the answer, closed by [eop]; at most ``slot_tokens`` long.

    Positions count 0, 1, 2.. through both; with ``targets_start_at_mask`` the target counts on from the position of
    the [MASK] itself. A prompt with a [MASK] of its own gets no other, and the target stays at the position of the
    first.

    Where they do not fit, the prompt keeps its head, down to a quarter of the slot; only then is the end of the
    answer cut.
    """
    for own_tokens in (1, 2):  # [sop] alone if the prompt brings its [MASK], else both
        head = prompt[: max(slot_tokens // 4, slot_tokens - own_tokens - len(answer))]
        if has_blank := bool((head == special.mask).any()):
            break
    context = head if has_blank else np.concatenate((head, [special.mask]))
    answer = answer[: slot_tokens - len(context) - 1]
    if has_blank:
        positions = np.full(len(answer) + 1, np.flatnonzero(head == special.mask)[0])
    else:
        first = len(context) - targets_start_at_mask
        positions = np.arange(first, first + len(answer) + 1)
    return fill_sample(context, answer, special=special, target_positions=positions)


def is_answer_cut(prompt_lengths: Int64Array, answer_lengths: Int64Array, *, slot_tokens: int) -> BoolArray:
    """Whether ``instruction_sample`` cuts the answer; for pairs of these lengths whose [MASK] is appended."""
    return np.minimum(prompt_lengths, slot_tokens // 4) + 2 + answer_lengths > slot_tokens
