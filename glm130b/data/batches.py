"""Which rows of a step a data-parallel rank takes, and in which micro-batches."""

from collections.abc import Iterator
from typing import Protocol

from glm130b.data.batch import MicroBatch, collate
from glm130b.data.objectives.row import Row


class Rows(Protocol):
    """Rows by sample index, the same in every process."""

    def __getitem__(self, sample_index: int) -> Row: ...


def micro_batch(rows: Rows, samples: range) -> MicroBatch:
    """The rows with these sample indices, put side by side."""
    return collate([rows[sample] for sample in samples])


def micro_batch_ranges(step: range, *, micro_size: int, data_rank: int, data_size: int) -> Iterator[range]:
    """Sample indices of each micro-batch that a rank has in the step that consumes the samples ``step``.

    Row ``j`` of the step goes to data rank ``(j // micro_size) % data_size``, into its micro-batch
    ``(j // micro_size) // data_size``. So the rows of a step depend on neither the layout nor the micro-batch size.
    The step's length is a multiple of ``micro_size * data_size``.
    """
    for first in range(step.start + data_rank * micro_size, step.stop, micro_size * data_size):
        yield range(first, first + micro_size)


def micro_batches(
    rows: Rows, *, first_sample: int, batch_size: int, micro_size: int, data_rank: int, data_size: int
) -> Iterator[MicroBatch]:
    """The micro-batches of one step on one data-parallel rank, built as they are asked for."""
    step = range(first_sample, first_sample + batch_size)
    for samples in micro_batch_ranges(step, micro_size=micro_size, data_rank=data_rank, data_size=data_size):
        yield micro_batch(rows, samples)
