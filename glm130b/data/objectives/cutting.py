"""The original's cutting: text that leaves no room for its blanks, and targets cut off where their slot ends."""

from dataclasses import replace

import numpy as np

from glm130b.data.arrays import Int64Array
from glm130b.data.objectives.row import Row, Segment


def cut_slots(row: Row, *, wide: int, slot_tokens: int) -> Row:
    """The row of slots of ``wide`` tokens with no more than ``slot_tokens`` of each.

    What stands past them is lost, targets first: a sample that is left without a target goes altogether.
    """
    segments, origins = [], []
    is_kept = np.zeros((len(row.tokens) // wide, slot_tokens), np.bool_)
    for segment, origin in zip(row.segments, row.origins, strict=True):
        slot, start = divmod(segment.start, wide)
        split = start + segment.context_length
        if (target_length := min(segment.target_length, slot_tokens - split)) > 0:
            segments.append(Segment(slot * slot_tokens + start, segment.context_length, target_length))
            origins.append(origin)
            is_kept[slot, : split + target_length] = True

    def cut(array: Int64Array) -> Int64Array:
        return (array.reshape(-1, wide)[:, :slot_tokens] * is_kept).ravel()

    return replace(
        row,
        tokens=cut(row.tokens),
        targets=cut(row.targets),
        loss_mask=cut(row.loss_mask.astype(np.int64)).astype(np.bool_),
        positions=cut(row.positions),
        block_positions=cut(row.block_positions),
        segments=tuple(segments),
        origins=tuple(origins),
    )
