"""Autoregressive blank infilling: a context with blanks, and targets that fill them (GLM paper, section 2.1).

Nothing is drawn here: which tokens are blanked, and in which order the blanks are filled, are arguments. With tokens
1..12, spans 2..5 and 8..10 (half-open) and the second span first::

    tokens     1 2 M 6 7 8 M 11 12 | sop 9 10  | sop 3 4 5      context_length 9
    targets                        | 9  10 eop |  3  4 5 eop    loss only here
    positions  0 1 2 3 4 5 6  7  8 |  6  6  6  |  2  2 2 2
    blocks     0 0 0 0 0 0 0  0  0 |  1  2  3  |  1  2 3 4
"""

from collections.abc import Sequence

import numpy as np

from glm130b.data.row import Int64Array
from glm130b.data.sample import Sample
from glm130b.data.special_tokens import SpecialTokens


def mask_sample(
    tokens: Int64Array,
    *,
    spans: Sequence[tuple[int, int]],
    order: Sequence[int],
    special: SpecialTokens,
    blank: int | None = None,
) -> Sample:
    """Each span replaced by one blank; the targets are the spans in ``order``, every one closed by [eop].

    ``spans`` are half-open, in rising order, with a token between two of them; ``order`` holds indices into them.
    ``blank`` is the token that stands for a span, [MASK] by default. A text of T tokens and S spans gives a sample of
    T + 2 S.
    """
    blank = special.mask if blank is None else blank
    context: list[Int64Array] = []
    blank_positions = []
    rest = position = 0
    for start, end in spans:
        blank_positions.append(position + start - rest)
        context += [tokens[rest:start], np.array([blank])]
        position, rest = position + start - rest + 1, end
    context.append(tokens[rest:])
    pieces = [tokens[slice(*spans[index])] for index in order]
    return _joined(
        np.concatenate(context),
        inputs=[np.concatenate(([special.sop], piece)) for piece in pieces],
        targets=[np.concatenate((piece, [special.eop])) for piece in pieces],
        positions=[np.full(len(piece) + 1, blank_positions[index]) for index, piece in zip(order, pieces, strict=True)],
    )


def gmask_sample(
    tokens: Int64Array,
    *,
    prefix_length: int,
    special: SpecialTokens,
    end_of_piece: bool,
    constant_positions: bool = False,
) -> Sample:
    """A prefix, [gMASK], and the rest of the text as the target.

    Positions count on through the target (GLM-130B), or stay at the blank (GLM with two-dimensional positions). A
    text of T tokens gives a sample of T + 2 with [eop], and of T + 1 without, where the last token is predicted but
    never read.
    """
    prefix, rest = tokens[:prefix_length], tokens[prefix_length:]
    targets = np.concatenate((rest, [special.eop])) if end_of_piece else rest
    counting = np.arange(prefix_length + 1, prefix_length + 1 + len(targets))
    return _joined(
        np.concatenate((prefix, [special.gmask])),
        inputs=[np.concatenate(([special.sop], rest))[: len(targets)]],
        targets=[targets],
        positions=[np.full(len(targets), prefix_length) if constant_positions else counting],
    )


def fill_sample(
    context: Int64Array, answer: Int64Array, *, special: SpecialTokens, target_positions: Int64Array
) -> Sample:
    """A context with its blank and an answer, closed by [eop]; ``target_positions`` are one more than its tokens."""
    return _joined(
        context,
        inputs=[np.concatenate(([special.sop], answer))],
        targets=[np.concatenate((answer, [special.eop]))],
        positions=[target_positions],
    )


def _joined(
    context: Int64Array, *, inputs: Sequence[Int64Array], targets: Sequence[Int64Array], positions: Sequence[Int64Array]
) -> Sample:
    """Context and targets side by side; block positions count 1, 2, 3.. inside each target."""
    tokens = np.concatenate((context, *inputs))
    return Sample(
        tokens=tokens,
        targets=np.concatenate((context, *targets)),
        loss_mask=np.arange(len(tokens)) >= len(context),
        positions=np.concatenate((np.arange(len(context)), *positions)),
        block_positions=np.concatenate((np.zeros_like(context), *(np.arange(1, len(piece) + 1) for piece in inputs))),
        context_length=len(context),
    )
