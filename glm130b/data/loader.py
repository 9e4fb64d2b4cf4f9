"""Micro-batches ahead of time: worker processes build the rows of the steps to come while the model computes."""

import multiprocessing
import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from threading import Thread
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.data.batch import MicroBatch
from glm130b.data.batches import Rows, micro_batch, micro_batch_ranges

_REQUESTS_TO_END = {signal.SIGTERM, signal.SIGUSR1}

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
        self._built: Iterator[MicroBatch | UserError] = iter(())
        self.seconds_waited = 0.0
        """Time spent so far in waiting for micro-batches that were not ready, or in building them here."""
        self.fingerprint = 0
        """CRC-32 of the tokens of the last step, the same on every process at this place of the data axis."""

    def micro_batches(self, step: range) -> Iterator[MicroBatch]:
        """This rank's micro-batches of the step that consumes the samples ``step``. Raises UserError for what a row
        meets in the user's files."""
        if next(self._foreseen, None) != step:
            self._start(step)
        upcoming, self._foreseen = self._foreseen, iter(())  # a step that is not read to its end is not gone on from
        self.fingerprint = 0
        num_left = sum(1 for _ in self._ranges(step))
        while num_left:
            began = time.perf_counter()
            batch = next(self._built)
            self.seconds_waited += time.perf_counter() - began
            if isinstance(batch, UserError):
                raise batch
            self.fingerprint = zlib.crc32(batch.tokens_BS.numpy().tobytes(), self.fingerprint)
            num_left -= 1
            if not num_left:
                self._foreseen = upcoming  # who takes as many as there are does not come back for the end
            yield batch

    def close(self) -> None:
        """End the workers."""
        self._foreseen, self._built = iter(()), iter(())

    def _start(self, step: range) -> None:
        self._foreseen = self._steps_from(step.start)
        if next(self._foreseen) != step:
            raise ValueError(f"samples {step.start} .. {step.stop} are no step of this run")
        workers = self._data.workers
        batches = DataLoader(
            self._micro_batches,
            sampler=chain.from_iterable(map(self._ranges, self._steps_from(step.start))),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            prefetch_factor=self._data.prefetch_batches if workers else None,
            pin_memory=self._pin_memory,
            multiprocessing_context=_forks_of_a_clean_process() if workers else None,
            worker_init_fn=_end_with_the_trainer if workers else None,
            # It draws a seed, and must not draw it from the stream that dropout's masks come from.
            generator=torch.Generator(),
        )
        with _requests_to_end_left_to_the_trainer():
            self._built = iter(batches)

    def _ranges(self, step: range) -> Iterator[range]:
        return micro_batch_ranges(
            step, micro_size=self._micro_size, data_rank=self._data_rank, data_size=self._data_size
        )


class _MicroBatches(Dataset[MicroBatch | UserError]):
    """Micro-batches by their range of samples, or what the user has to mend: raised in a worker, it would arrive as a
    trace."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __getitem__(self, samples: range) -> MicroBatch | UserError:
        try:
            return micro_batch(self._rows, samples)
        except UserError as error:
            return error


def _forks_of_a_clean_process() -> BaseContext:
    """A fork of the trainer itself would copy its threads and its hold on a GPU. The clean process imports once for all
    workers."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@contextmanager
def _requests_to_end_left_to_the_trainer() -> Iterator[None]:
    """Processes that are started inside do not hear the signals by which a run is asked to save and end.

    Launchers send them to everybody, and a worker that died of one would take the run with it before it has saved. A
    signal mask is inherited; one that reaches the trainer meanwhile waits.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _REQUESTS_TO_END)
    try:
        resource_tracker.ensure_running()  # which unblocks SIGTERM
        signal.pthread_sigmask(signal.SIG_BLOCK, _REQUESTS_TO_END)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_the_trainer(worker: int) -> None:
    """A trainer that is killed cannot end its workers, and the server that forked them outlives it with them; one that
    lives ends them by SIGTERM."""
    trainer = multiprocessing.parent_process()
    assert trainer is not None

    def outlived() -> None:
        trainer.join()
        os._exit(1)

    def dismissed() -> None:
        while signal.sigwaitinfo(_REQUESTS_TO_END).si_pid != trainer.pid:
            pass
        os._exit(1)

    for end in (outlived, dismissed):
        Thread(target=end, daemon=True).start()


def _as_it_is(batch: Any) -> Any:
    """A micro-batch is collated already."""
    return batch
