"""The micro-batches of one step on one data-parallel rank."""

from collections.abc import Iterator

from glm130b.data.batch import MicroBatch, collate
from glm130b.data.dataset import GLMDataset


def micro_batches(
    dataset: GLMDataset, *, first_sample: int, batch_size: int, micro_size: int, data_rank: int, data_size: int
) -> Iterator[MicroBatch]:
    """Micro-batches of the step that consumes rows ``first_sample .. first_sample + batch_size - 1``.

    Row ``j`` of the step goes to data rank ``(j // micro_size) % data_size``, into its micro-batch
    ``(j // micro_size) // data_size``. So the rows of a step depend on neither the layout nor the micro-batch size.
    ``batch_size`` is a multiple of ``micro_size * data_size``.
    """
    for first in range(first_sample + data_rank * micro_size, first_sample + batch_size, micro_size * data_size):
        yield collate([dataset[sample] for sample in range(first, first + micro_size)])
