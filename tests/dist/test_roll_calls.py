"""What one process knows, all know after the step; and a process that hardly gets to run is named."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from glm130b.config.supervision import SupervisionConfig
from glm130b.environment import Launch
from glm130b.parallel.topology import Topology
from glm130b.training.interruption import Interruption
from glm130b.training.journal import Event
from glm130b.training.metrics import Record
from glm130b.training.pace import Pace
from glm130b.training.progress import Progress
from glm130b.training.roll_call import RollCall
from tests.harness.journal import Told
from tests.harness.pool import run_distributed
from tests.harness.stage import in_layout, joined
from tests.harness.synthetic import small_config

UNDISTURBED, WITHIN, SLOW = 12, 20, 2


def step(hook: RollCall, number: int, topology: Topology) -> None:
    """As much arithmetic and waiting for each other as in a step of a small model."""
    weight = torch.ones(128, 128)
    for _ in range(2):
        for _ in range(150):
            weight @ weight
        dist.all_reduce(torch.zeros(20_000))
    hook.after_step(Progress(step=number), cast(Record, cast(Any, None)))


def signalled(launch: Launch, folder: Path, speaker: int, number: int) -> list[str | None]:
    """The reason after each of three steps; ``speaker`` gets the signal before the second."""
    config, _ = in_layout(small_config(), "TP2 PP2")
    reasons = []
    asked = Interruption(folder, is_first_rank=launch.rank == 0, time_budget_minutes=None, started=time.monotonic())
    with joined(launch, config) as topology, asked:
        hook = RollCall([asked], topology)
        for taken in range(1, 4):
            if taken == 2 and launch.rank == speaker:
                os.kill(os.getpid(), number)
            step(hook, taken, topology)
            reasons.append(asked.reason)
    return reasons


def test_all_ranks_hear_of_a_signal_after_the_same_step(tmp_path: Path) -> None:
    reasons = run_distributed(signalled, 4, tmp_path, 3, signal.SIGUSR1)
    assert reasons == [[None, "SIGUSR1 on rank 3", "SIGUSR1 on rank 3"]] * 4


def paced(launch: Launch, folder: Path) -> list[Event]:
    """What each rank's journal was told; the process SLOW asks to be slowed after its undisturbed steps."""
    config, _ = in_layout(small_config(), "TP2 PP2")
    told = Told()
    with joined(launch, config) as topology:
        pace = Pace(SupervisionConfig(), hosts=("here",) * 4, device=topology.device, journal=told)
        hook = RollCall([pace], topology)
        for taken in range(1, UNDISTURBED + WITHIN + 1):
            step(hook, taken, topology)
            if taken == UNDISTURBED and launch.rank == SLOW:
                (folder / "asked").write_text(str(os.getpid()))
                (folder / "asked").rename(folder / "pid")
    return told.events


def slow_down(folder: Path, over: threading.Event) -> None:
    """Stop the process that asks for it, over and over, for four times as long as it ran: a busy machine wakes this
    thread late, and the process must not get more of the time for that."""
    continued = None
    while not over.wait(0.003):
        try:
            process = int((folder / "pid").read_text())
            if continued:
                os.kill(process, signal.SIGSTOP)
                time.sleep(4 * (time.perf_counter() - continued))
                os.kill(process, signal.SIGCONT)
            continued = time.perf_counter()
        except (FileNotFoundError, ProcessLookupError):  # not yet, or no more
            continue


def test_a_rank_that_runs_a_fifth_of_the_time_is_named(tmp_path: Path) -> None:
    over = threading.Event()
    saboteur = threading.Thread(target=slow_down, args=(tmp_path, over))
    saboteur.start()
    try:
        told = run_distributed(paced, 4, tmp_path)
    finally:
        over.set()
        saboteur.join()
    assert told == [told[0]] * 4
    # Once or more: pieces that fall between two stops may let it keep pace for a while.
    assert {event.details["rank"] for event in told[0] if event.name == "slow rank"} == {SLOW}, told[0]
    assert UNDISTURBED < told[0][0].step <= UNDISTURBED + WITHIN
