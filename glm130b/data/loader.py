"""Micro-batches ahead of time: worker processes build the rows of the steps to come while the model computes."""

import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from torch.utils.data import DataLoader, Dataset

from glm130b.config.sections import RunConfig
from glm130b.data.batch import MicroBatch, collate
from glm130b.data.batches import Rows, micro_batch_ranges

StepsFrom = Callable[[int], Iterator[range]]
"""The sample ranges of the steps that a run takes from a sample on, in their order."""


class Loader:
    """The micro-batches of one data-parallel rank, step after step.

    What a step sees is a pure function of its samples, so workers, prefetching and a restart at any step change
    nothing but the time. A step that was not foreseen, such as after a rewind, starts the workers anew from there.
    """

    def __init__(
        self, rows: Rows, config: RunConfig, *, steps_from: StepsFrom, data_rank: int, data_size: int, pin_memory: bool
    ) -> None:
        """``rows`` is pickled into ``config.data.workers`` processes; ``pin_memory`` is for copies to a GPU."""
        self._micro_batches, self._data, self._pin_memory = _MicroBatches(rows), config.data, pin_memory
        self._micro_size, self._data_rank, self._data_size = config.batch.micro_size, data_rank, data_size
        self._steps_from = steps_from
        self._foreseen: Iterator[range] = iter(())
        self._built: Iterator[MicroBatch] = iter(())
        self.seconds_waited = 0.0
        """Time spent so far in waiting for micro-batches that were not ready, or in building them here."""

    def micro_batches(self, step: range) -> Iterator[MicroBatch]:
        """This rank's micro-batches of the step that consumes the samples ``step``."""
        if next(self._foreseen, None) != step:
            self._start(step)
        for _ in self._ranges(step):
            began = time.perf_counter()
            batch = next(self._built)
            self.seconds_waited += time.perf_counter() - began
            yield batch

    def close(self) -> None:
        """End the workers."""
        self._foreseen, self._built = iter(()), iter(())

    def _start(self, step: range) -> None:
        self._foreseen = self._steps_from(step.start)
        if next(self._foreseen) != step:
            raise ValueError(f"samples {step.start} .. {step.stop} are no step of this run")
        workers = self._data.workers
        self._built = iter(
            DataLoader(
                self._micro_batches,
                sampler=chain.from_iterable(map(self._ranges, self._steps_from(step.start))),
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=workers,
                prefetch_factor=self._data.prefetch_batches if workers else None,
                pin_memory=self._pin_memory,
                # A fork would copy a process that may already hold threads and a GPU.
                multiprocessing_context="forkserver" if workers else None,
            )
        )

    def _ranges(self, step: range) -> Iterator[range]:
        return micro_batch_ranges(
            step, micro_size=self._micro_size, data_rank=self._data_rank, data_size=self._data_size
        )


class _MicroBatches(Dataset[MicroBatch]):
    """Micro-batches by their range of samples."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __getitem__(self, samples: range) -> MicroBatch:
        return collate([self._rows[sample] for sample in samples])


def _as_it_is(batch: Any) -> Any:
    """A micro-batch is collated already."""
    return batch
