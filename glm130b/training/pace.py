"""Names the rank that is slow.

In synchronous training every rank's step takes as long as the slowest one's, so the time of a step tells nothing. Each
rank therefore times a small fixed piece of its own arithmetic once a step, and all compare. That shows a slow chip or a
process that does not get to run; a slow network link it does not show.
"""

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from glm130b.config.supervision import SupervisionConfig
from glm130b.training.journal import Event, Journal
from glm130b.training.progress import Progress

_REPEAT_STEPS = 100
"""A rank that stays slow is told of again after so many."""
_CORE_STATISTICS = Path("/proc/thread-self/schedstat")
"""Linux: nanoseconds on a core, nanoseconds in wait for one, time slices."""


class Pace:
    """A voice: says how long this rank's piece of arithmetic took, and tells the journal of ranks far off the others.

    A rank's pace is its mean over the window without its worst step, so that no single stall names it. The mean and not
    the median: a process that runs 4 ms of every 20 does most short pieces undisturbed, and some in five times as long.
    """

    def __init__(
        self, config: SupervisionConfig, *, hosts: Sequence[str], device: torch.device, journal: Journal
    ) -> None:
        """``hosts`` by rank."""
        self._factor = config.slow_rank_factor
        self._journal = journal
        self._hosts = hosts
        self._heard: deque[Tensor] = deque(maxlen=config.slow_rank_steps)
        self._steps_told: dict[int, int] = {}
        """The ranks that are slow, and the steps since the journal was told."""
        self._piece = Piece(device)

    def say(self) -> float:
        """Seconds of the piece."""
        return self._piece.seconds()

    def hear(self, said: Tensor, progress: Progress) -> None:
        """``said`` is float64 [world], seconds."""
        self._heard.append(said)
        if len(self._heard) < (self._heard.maxlen or 0):
            return
        for rank, factor in enumerate(self._factors().tolist()):
            if rank in self._steps_told:
                self._judge_slow(rank, factor, progress.step)
            elif factor >= self._factor:
                self._tell_slow(rank, factor, progress.step)

    def _factors(self) -> Tensor:
        """Each rank's pace as a multiple of the ranks' median: float64 [world]. Of an even number of ranks the lower of
        the two in the middle, so that of two ranks one can be slow."""
        times_SW = torch.stack(tuple(self._heard)).sort(dim=0).values
        pace_W = times_SW[: max(1, len(times_SW) - 1)].mean(dim=0)
        return pace_W / pace_W.median()

    def _judge_slow(self, rank: int, factor: float, step: int) -> None:
        """A rank that was slow. It is fast again halfway down to the others, so that one at the limit is told of
        once."""
        self._steps_told[rank] += 1
        if factor < (1 + self._factor) / 2:
            del self._steps_told[rank]
            message = f"rank {rank} on {self._hosts[rank]} keeps pace again"
            self._tell("slow rank recovered", message, rank, factor, step)
        elif self._steps_told[rank] >= _REPEAT_STEPS:
            self._tell_slow(rank, factor, step)

    def _tell_slow(self, rank: int, factor: float, step: int) -> None:
        self._steps_told[rank] = 0
        message = f"rank {rank} on {self._hosts[rank]} takes {factor:.1f} times as long as the others for the same work"
        self._tell("slow rank", message, rank, factor, step)

    def _tell(self, name: str, message: str, rank: int, factor: float, step: int) -> None:
        details = {"rank": rank, "host": self._hosts[rank], "factor": round(factor, 2)}
        self._journal.tell(Event(name, step, message, details))


class Piece:
    """A few matrix products: 2 to 3 ms of a CPU core, less than 1 ms of a GPU.

    Processes on CPUs share their cores with each other, in turns that differ by far more than five-fold within one
    piece; so there a wait for a core does not count. On a GPU's host it does: it is a fault of that host.
    """

    def __init__(self, device: torch.device) -> None:
        size, self._products = (1024, 4) if device.type == "cuda" else (256, 10)
        self._factor = torch.full((size, size), 1 / size, device=device)  # its own square: nothing grows or vanishes
        self._product = torch.empty_like(self._factor)
        self._shares_cores = device.type == "cpu" and _CORE_STATISTICS.exists()
        for _ in range(3):  # kernels are chosen, memory is touched
            self.seconds()

    def seconds(self) -> float:
        """Do it once."""
        self._wait_for_device()  # for what the step left there
        waited, worked, began = self._seconds_waited(), time.thread_time(), time.perf_counter()
        for _ in range(self._products):
            torch.mm(self._factor, self._factor, out=self._product)
        self._wait_for_device()
        took, worked = time.perf_counter() - began, time.thread_time() - worked
        # A wait between two readings is subtracted and was not in `took`: the work itself is the least.
        return max(worked, took - (self._seconds_waited() - waited))

    def _wait_for_device(self) -> None:
        self._product[0, 0].item()

    def _seconds_waited(self) -> float:
        """This thread's wait for a core so far, where that does not count."""
        return int(_CORE_STATISTICS.read_text().split()[1]) / 1e9 if self._shares_cores else 0.0
