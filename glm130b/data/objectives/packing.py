"""Samples side by side in a row, each in a slot of its own."""

from collections.abc import Sequence

import numpy as np

from glm130b.data.row import Int64Array, Row, Segment
from glm130b.data.sample import Sample


def pack(samples: Sequence[Sample], *, slot_tokens: int, objective: str, source: str) -> Row:
    """A row of one slot per sample: sample i starts at token ``i * slot_tokens``, the rest of a slot is padding.

    Raises ValueError if a sample is longer than its slot: nothing is ever cut here.
    """
    if (longest := max(map(len, samples))) > slot_tokens:
        raise ValueError(f"a sample of {longest} tokens does not fit a slot of {slot_tokens}")

    def padded(name: str) -> Int64Array:
        row = np.zeros(slot_tokens * len(samples), np.int64)
        for slot, sample in enumerate(samples):
            row[slot * slot_tokens :][: len(sample)] = getattr(sample, name)
        return row

    return Row(
        tokens=padded("tokens"),
        targets=padded("targets"),
        loss_mask=padded("loss_mask").astype(np.bool_),
        positions=padded("positions"),
        block_positions=padded("block_positions"),
        segments=tuple(
            Segment(slot * slot_tokens, sample.context_length, len(sample) - sample.context_length)
            for slot, sample in enumerate(samples)
        ),
        objective=objective,
        source=source,
    )
