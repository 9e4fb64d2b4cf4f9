"""Blank infilling as the paper tells it, token by token: what the product's array arithmetic is compared with."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from glm130b.data.objectives.sample import Sample
from glm130b.data.tokenizers.special_tokens import SpecialTokens


def mask_sample(
    tokens: Sequence[int] | Any,
    *,
    spans: Sequence[tuple[int, int]],
    order: Sequence[int],
    special: SpecialTokens,
    blank: int | None = None,
) -> Sample:
    """Each half-open span replaced by one blank, [MASK] by default; the targets are the spans in ``order``."""
    tokens, blanks = list(tokens), {}
    context: list[int] = []
    ends = dict(spans)
    token = 0
    while token < len(tokens):
        if token in ends:
            blanks[token] = len(context)
            context.append(special.mask if blank is None else blank)
            token = ends[token]
        else:
            context.append(tokens[token])
            token += 1
    inputs, targets = list(context), list(context)
    positions, block_positions = list(range(len(context))), [0] * len(context)
    for index in order:
        start, end = spans[index]
        inputs += [special.sop, *tokens[start:end]]
        targets += [*tokens[start:end], special.eop]
        positions += [blanks[start]] * (end - start + 1)
        block_positions += range(1, end - start + 2)
    return _sample(inputs, targets, positions, block_positions, context_length=len(context))


def gmask_sample(
    tokens: Sequence[int] | Any,
    *,
    prefix_length: int,
    special: SpecialTokens,
    end_of_piece: bool,
    constant_positions: bool = False,
) -> Sample:
    """A prefix, [gMASK], and the rest as the target, with or without [eop]."""
    tokens = list(tokens)
    context, rest = [*tokens[:prefix_length], special.gmask], tokens[prefix_length:]
    targets = [*rest, special.eop] if end_of_piece else rest
    inputs = [special.sop, *rest] if end_of_piece else [special.sop, *rest[:-1]]
    positions = (
        [prefix_length] * len(targets) if constant_positions else list(range(len(context), len(context + inputs)))
    )
    return _sample(
        context + inputs,
        context + targets,
        list(range(len(context))) + positions,
        [0] * len(context) + list(range(1, len(targets) + 1)),
        context_length=len(context),
    )


def _sample(
    tokens: list[int], targets: list[int], positions: list[int], block_positions: list[int], *, context_length: int
) -> Sample:
    return Sample(
        tokens=np.array(tokens, np.int64),
        targets=np.array(targets, np.int64),
        loss_mask=np.array([token >= context_length for token in range(len(tokens))]),
        positions=np.array(positions, np.int64),
        block_positions=np.array(block_positions, np.int64),
        context_length=context_length,
    )
