"""Autoregressive blank infilling: contexts with blanks, and targets that fill them (GLM paper, section 2.1).

Nothing is drawn here: which tokens are blanked, and in which order the blanks are filled, are arguments. With tokens
1..12, spans 2..5 and 8..10 (half-open) and the second span first::

    tokens     1 2 M 6 7 8 M 11 12 | sop 9 10  | sop 3 4 5      context_length 9
    targets                        | 9  10 eop |  3  4 5 eop    loss only here
    positions  0 1 2 3 4 5 6  7  8 |  6  6  6  |  2  2 2 2
    blocks     0 0 0 0 0 0 0  0  0 |  1  2  3  |  1  2 3 4
"""

import numpy as np

from glm130b.data.arrays import Int64Array
from glm130b.data.objectives.pieces import Pieces, Room, Stretch
from glm130b.data.objectives.row import Origin, Row, Segment
from glm130b.data.objectives.spans import Spans
from glm130b.data.tokenizers.special_tokens import SpecialTokens


def infilling_row(
    stretch: Stretch,
    pieces: Pieces,
    spans: Spans,
    *,
    order: Int64Array,
    room: Room,
    special: SpecialTokens,
    objective: str,
    source: str,
) -> Row:
    """Each span of a piece replaced by one blank; the targets are its spans, every one closed by [eop].

    ``order`` [S] holds indices of the spans as they are filled, piece after piece; each piece has one at least. A piece
    of T tokens with S spans gives a segment of T + 2 S. The blank is [sMASK] for the objective ``smask``, else [MASK].
    All pieces and spans are written by the same few array operations, however many there are.
    """
    num_spans = np.bincount(spans.piece)
    first_span = num_spans.cumsum() - num_spans
    blanked = np.add.reduceat(spans.length, first_span)
    contexts, targets = pieces.length - blanked + num_spans, blanked + num_spans
    row = _empty_row(stretch, pieces, contexts, targets, room=room, objective=objective, source=source)
    starts = np.array([segment.start for segment in row.segments])
    # From here on tokens are counted through all pieces, and spans stand in the order of filling.
    text = stretch.tokens[_ranges(pieces.start, pieces.length)]
    span_starts = ((pieces.length.cumsum() - pieces.length)[spans.piece] + spans.start)[order]
    removed_before = (spans.length - 1).cumsum() - spans.length + 1
    blank_positions = (spans.start - removed_before + removed_before[first_span][spans.piece])[order]

    # A target reads [sop] and its span, and predicts its span and [eop]: the token before a target ends the last one.
    lengths = spans.length[order] + 1
    first = lengths.cumsum() - lengths
    sources = _ranges(span_starts - 1, lengths)
    read = text[sources]
    predicted = np.concatenate((read[1:], read[:1]))
    read[first], predicted[first - 1] = special.sop, special.eop
    at = _ranges(starts + contexts, targets)
    row.tokens[at], row.targets[at], row.loss_mask[at] = read, predicted, True
    row.positions[at] = blank_positions.repeat(lengths)
    row.block_positions[at] = _ranges(np.ones_like(lengths), lengths)

    is_blanked, is_context = np.ones(len(sources), np.bool_), np.ones(len(text), np.bool_)
    is_blanked[first] = False
    is_context[sources[is_blanked]] = False
    text[span_starts], is_context[span_starts] = special.smask if objective == "smask" else special.mask, True
    at = _ranges(starts, contexts)
    row.tokens[at] = row.targets[at] = text[is_context]
    row.positions[at] = _ranges(np.zeros_like(contexts), contexts)
    return row


def continuation_row(
    stretch: Stretch,
    pieces: Pieces,
    *,
    target_lengths: Int64Array,
    room: Room,
    special: SpecialTokens,
    end_of_piece: bool,
    constant_positions: bool,
    source: str,
) -> Row:
    """A prefix, [gMASK], and as the target the rest, of ``target_lengths`` [P] tokens, of each piece.

    Positions count on through the target (GLM-130B), or stay at the blank (GLM with two-dimensional positions). A piece
    of T tokens gives a segment of T + 2 with [eop], and of T + 1 without, where the last token is predicted but never
    read.
    """
    prefixes = pieces.length - target_lengths
    row = _empty_row(
        stretch, pieces, prefixes + 1, target_lengths + end_of_piece, room=room, objective="gmask", source=source
    )
    for segment, origin in zip(row.segments, row.origins, strict=True):
        text = stretch.tokens[origin.start - stretch.start :][: origin.length]
        blank, end = segment.start + segment.context_length - 1, segment.end
        target = blank + 1
        rest = text[segment.context_length - 1 :]
        for array in (row.tokens, row.targets):
            array[segment.start : blank] = text[: segment.context_length - 1]
            array[blank] = special.gmask
        row.tokens[target] = special.sop
        row.tokens[target + 1 : end] = rest[: end - target - 1]
        row.targets[target : target + len(rest)] = rest
        if end_of_piece:
            row.targets[end - 1] = special.eop
        row.loss_mask[target:end] = True
        row.positions[segment.start : end] = np.arange(end - segment.start)
        if constant_positions:
            row.positions[target:end] = blank - segment.start
        row.block_positions[target:end] = np.arange(1, end - target + 1)
    return row


def _empty_row(
    stretch: Stretch,
    pieces: Pieces,
    contexts: Int64Array,
    targets: Int64Array,
    *,
    room: Room,
    objective: str,
    source: str,
) -> Row:
    """A row of nothing but padding, with its segments: side by side in each slot, in the order of the pieces.

    Raises ValueError if the segments of a slot do not fit it: nothing is cut here.
    """
    segments: list[Segment] = []
    for slot, context, target in zip(pieces.slot.tolist(), contexts.tolist(), targets.tolist(), strict=True):
        start = max(slot * room.slot_tokens, segments[-1].end if segments else 0)
        segments.append(Segment(start, context, target))
        if (too_many := segments[-1].end - (slot + 1) * room.slot_tokens) > 0:
            raise ValueError(f"the samples of a slot of {room.slot_tokens} tokens are {too_many} tokens too long")
    num_tokens = room.num_slots * room.slot_tokens
    tokens, target_tokens, positions, block_positions = np.zeros((4, num_tokens), np.int64)
    return Row(
        tokens=tokens,
        targets=target_tokens,
        loss_mask=np.zeros(num_tokens, np.bool_),
        positions=positions,
        block_positions=block_positions,
        segments=tuple(segments),
        objective=objective,
        source=source,
        origins=tuple(map(Origin, (stretch.start + pieces.start).tolist(), pieces.length.tolist())),
    )


def _ranges(starts: Int64Array, lengths: Int64Array) -> Int64Array:
    """Integers counted from each start on, one range after the other: ``[7, 1], [2, 3]`` gives ``[7, 8, 1, 2, 3]``."""
    ends = lengths.cumsum()
    ranges = (starts - ends + lengths).repeat(lengths)
    ranges += np.arange(len(ranges))
    return ranges
