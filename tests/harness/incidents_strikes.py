"""What goes wrong inside a rank, at a stated instant of its work or of its file system's."""

import errno
import itertools
import math
import os
import pkgutil
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from glm130b.data.batch import MicroBatch
from glm130b.data.dataset import GLMDataset
from glm130b.data.objectives.row import Row
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.parallel.pipeline import ForwardStep, LossFunction
from glm130b.training import stepper

FORWARD = "glm130b.model.glm.GLM.forward"
UPDATE = "glm130b.parallel.zero.ZeroEngine.step"


def until_named(latest: Path, checkpoint: str) -> None:
    """Wait for the save of a checkpoint to end, on all ranks."""
    while not latest.exists() or latest.read_text() != checkpoint:
        time.sleep(0.05)
    time.sleep(1)


Deed = Callable[[], object]
"""Pickled on its way into the rank: a function at the top of a module, or a ``partial`` of one."""


@dataclass(frozen=True)
class Strike:
    """``deed`` on ``rank`` just before the ``call``-th call of a function there, or just after it."""

    rank: int | None
    where: str
    """Function or method by its full name."""
    deed: Deed
    call: int = 1
    """Counted from 1."""
    calls: int = 1
    """Calls in a row that are struck."""
    after: bool = False

    def install(self) -> None:
        owner_name, _, name = self.where.rpartition(".")
        owner = pkgutil.resolve_name(owner_name)
        function, counter = getattr(owner, name), itertools.count(1)

        @wraps(function)
        def struck(*args: Any, **keywords: Any) -> Any:
            is_due = self.call <= next(counter) < self.call + self.calls
            if is_due and not self.after:
                self.deed()
            result = function(*args, **keywords)
            if is_due and self.after:
                self.deed()
            return result

        setattr(owner, name, struck)


@dataclass(frozen=True)
class FileStrike:
    """``deed`` on ``rank`` when Python is about to do something to a file there: open, rename, remove it."""

    rank: int | None
    event: str
    """Name of the interpreter's audit event: ``open``, ``os.rename`` (also ``os.replace``), ``os.mkdir``."""
    path: str
    """Part of the path, of one of the paths."""
    deed: Deed
    call: int = 1
    """The first of the matching operations that is struck, counted from 1."""
    calls: int = 1
    seconds: float = math.inf
    """For so long from the first one on."""

    def install(self) -> None:
        counter, began = itertools.count(1), list[float]()

        def listen(event: str, arguments: tuple[Any, ...]) -> None:
            if event != self.event or not any(self.path in os.fspath(a) for a in arguments if _is_path(a)):
                return
            if self.call <= next(counter) < self.call + self.calls:
                began.append(time.monotonic())
                if began[-1] - began[0] < self.seconds:
                    self.deed()

        sys.addaudithook(listen)


def _is_path(argument: object) -> bool:
    return isinstance(argument, (str, Path))


@dataclass(frozen=True)
class NoisyRows:
    """A stretch of the data is rubbish: every target is one token id that is nowhere else, so that the loss jumps.

    With ``factor`` the loss of such rows is multiplied by it: nan is what GLM-130B's instruction data gave.
    """

    first_sample: int
    samples: int
    factor: float = 1.0
    rank: int | None = None

    _RUBBISH = 319

    def install(self) -> None:
        trainer: Any = stepper  # which has imported the name
        read, forward_step = GLMDataset.__getitem__, trainer.forward_step

        def row(rows: GLMDataset, sample_index: int) -> Row:
            row = read(rows, sample_index)
            if not self.first_sample <= sample_index < self.first_sample + self.samples:
                return row
            return replace(row, targets=row.targets * 0 + self._RUBBISH)

        def poisoned(device: Any, shrink: ShrinkFactors) -> ForwardStep:
            step = forward_step(device, shrink)

            def run(micro_batches: Iterator[MicroBatch], model: nn.Module) -> tuple[Tensor, LossFunction]:
                batch = next(micro_batches)
                output, loss = step(iter([batch]), model)
                return output * (self.factor if (batch.targets_BS == self._RUBBISH).any() else 1.0), loss

            return run

        GLMDataset.__getitem__ = row  # type: ignore[method-assign]
        if self.factor != 1.0:
            trainer.forward_step = poisoned


def be_killed() -> None:
    """As a machine that is gone: no handler runs, nothing is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


def be_stopped() -> None:
    """As a machine that hangs."""
    os.kill(os.getpid(), signal.SIGSTOP)


def be_asked_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def be_warned() -> None:
    """Slurm's warning before the time limit."""
    os.kill(os.getpid(), signal.SIGUSR1)


def fail_to_write(number: int = errno.ENOSPC) -> None:
    raise OSError(number, os.strerror(number))


def lose_the_file_system() -> None:
    fail_to_write(errno.EIO)


def move_away(folder: Path) -> None:
    """As a file system that is unmounted."""
    folder.rename(folder.with_name(folder.name + "-away"))


def bring_back(folder: Path) -> None:
    folder.with_name(folder.name + "-away").rename(folder)


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)


def set_the_clock(days: float) -> None:
    """For this process, from now on."""
    now = time.time
    time.time = lambda: now() + 86_400 * days


def fill_the_disk() -> None:
    """No file of this process may grow any more, by the kernel's word; the console goes to nobody meanwhile."""
    for stream in (1, 2):
        os.dup2(stream, 100 + stream)
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def free_the_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for stream in (1, 2):
        os.dup2(100 + stream, stream)
