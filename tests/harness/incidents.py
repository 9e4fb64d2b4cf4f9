"""Runs the whole main job on several processes of this machine and starts it again when it falls, as torchrun's agent
does: what the incidents of GLM-130B's log are replayed on.

Each rank is a fork of the pool's server (tests/harness/pool.py) that calls the product's own entry with the words of a
user, so a job of two ranks takes two seconds where a launcher's takes eight.
"""

import multiprocessing
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import torch
from torch.distributed import TCPStore

from glm130b.config.load import load_config
from glm130b.launcher import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.harness.preload"])

USERS_MISTAKE, STOPPED = 2, 3
_NO_RESTART = (USERS_MISTAKE, STOPPED)
_STEP_LINE = re.compile(r"^ {2,7}(\d+) ", re.MULTILINE)


class Fault(Protocol):
    """What goes wrong inside a rank: picklable, installed in the rank's own process before the run begins there."""

    rank: int | None
    """None is every rank."""

    def install(self) -> None: ...


@dataclass
class Start:
    """One start of all ranks of a job."""

    folder: Path
    """Holds ``rank<N>.txt``, all that a rank said."""
    processes: list[ForkServerProcess] = field(default_factory=list)
    seconds: float = 0.0
    hanging: list[int] = field(default_factory=list)
    """Ranks that had to be killed because they did not end by themselves after another one had failed."""

    def said(self, rank: int = 0) -> str:
        file = self.folder / f"rank{rank}.txt"
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    @property
    def everything_said(self) -> str:
        return "".join(self.said(rank) for rank in range(len(self.processes)))

    @property
    def statuses(self) -> list[int]:
        """By rank; a negative one is the signal that ended the rank."""
        return [process.exitcode if process.exitcode is not None else 0 for process in self.processes]

    @property
    def steps(self) -> list[int]:
        """The training steps that the console shows, in order."""
        return [int(step) for step in _STEP_LINE.findall(self.said())]

    def pid(self, rank: int) -> int:
        pid = self.processes[rank].pid
        assert pid is not None
        return pid

    def wait_until(self, condition: Callable[[], bool], *, seconds: float = 150.0) -> None:
        """For what happens to the job from outside; a job that ends before that has nothing to wait for."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds:g} s for nothing; rank 0 said:\n{self.said()}"
            assert any(process.is_alive() for process in self.processes), f"ended too early:\n{self.said()}"
            time.sleep(0.01)

    def wait_for_step(self, step: int) -> None:
        self.wait_until(lambda: step in self.steps)


Outside = Callable[[Start], None]
"""Something that happens around a job while it runs: its ranks are started, nothing else is promised."""


def start_job(
    words: Sequence[str],
    *,
    folder: Path,
    faults: Sequence[Fault] = (),
    outside: Outside | None = None,
    processes: int | None = None,
    store: TCPStore | None = None,
    restarts: int = 0,
    grace_seconds: float = 5.0,
    timeout_seconds: float = 200.0,
) -> Start:
    """Start every rank once, ``processes`` or as many as the config asks for, and wait until all have ended.

    ``words`` are a user's: CONFIG [section.key=value ...]. ``folder`` is made and takes what the ranks say. When a rank
    fails the others have ``grace_seconds`` to end by themselves; who does not is killed, and noted.
    """
    folder.mkdir(parents=True)
    parallel = load_config(words[0], words[1:]).parallel
    data = parallel.data if isinstance(parallel.data, int) else 1
    world_size = processes or parallel.tensor * parallel.pipeline * data
    store = store or _store()
    environment = {
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0, too, joins the supervisor's store
        "TORCHELASTIC_RESTART_COUNT": str(restarts),
    }
    start, began = Start(folder), time.monotonic()
    try:
        for rank in range(world_size):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            own = [fault for fault in faults if fault.rank in (rank, None)]
            args = (environment | place, folder / f"rank{rank}.txt", own, words)
            process = _CONTEXT.Process(target=_rank, args=args, name=f"rank {rank}")
            process.start()
            start.processes.append(process)
        _run_beside(outside, start, lambda: _supervise(start, grace_seconds, began + timeout_seconds))
    finally:
        for process in start.processes:
            process.kill()
            process.join()
    start.seconds = time.monotonic() - began
    return start


def run_job(
    words: Sequence[str],
    *,
    folder: Path,
    faults: Sequence[Fault] = (),
    lasting: Sequence[Fault] = (),
    outside: Outside | None = None,
    most_starts: int = 2,
    **options: Any,
) -> list[Start]:
    """Start the job, and again with the same words for as long as it fails by no mistake of its user.

    ``faults`` and ``outside`` happen to the first start only, ``lasting`` faults to all.
    """
    starts: list[Start] = []
    store = _store()  # one for all starts, as torchrun's agent has
    while len(starts) < most_starts:
        start = start_job(
            words,
            folder=folder / f"start-{len(starts) + 1}",
            faults=[*lasting, *(() if starts else faults)],
            outside=None if starts else outside,
            store=store,
            restarts=len(starts),
            **options,
        )
        starts.append(start)
        if not any(start.statuses) or start.statuses[0] in _NO_RESTART:
            break
    return starts


def _store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(minutes=2))


def _supervise(start: Start, grace_seconds: float, deadline: float) -> None:
    """Until all ranks have ended; the first failure begins the grace, after which the rest is killed."""
    alive = dict(enumerate(start.processes))
    has_failed = False
    while alive and (left := deadline - time.monotonic()) > 0:
        wait([process.sentinel for process in alive.values()], timeout=left)
        for rank, process in list(alive.items()):
            if process.exitcode is not None:
                del alive[rank]
                if process.exitcode and not has_failed:
                    has_failed, deadline = True, min(deadline, time.monotonic() + grace_seconds)
    start.hanging += alive


def _run_beside(outside: Outside | None, start: Start, supervise: Callable[[], None]) -> None:
    """``outside`` in a thread of its own while the job runs; what it raises is raised here."""
    raised: list[BaseException] = []

    def tell() -> None:
        try:
            if outside is not None:
                outside(start)
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=tell)
    thread.start()
    supervise()
    thread.join()
    if raised:
        raise raised[0]


def _rank(environment: Mapping[str, str], output: Path, faults: Sequence[Fault], words: Sequence[str]) -> None:
    """One rank, in its own process, as a launcher starts it."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    for fault in faults:
        fault.install()
    main(words)
