"""A replaced node that was slower than the rest: 2022-05-21."""

import os
import signal
import socket
import time
from contextlib import suppress

from tests.harness.incidents import Start
from tests.incidents.conftest import ROWS, Site

STEPS = 60


def test_a_rank_slowed_five_fold_is_named_within_20_steps(site: Site) -> None:
    """SIGSTOP and SIGCONT in turns: the process gets a fifth of its time, however late this one gets its own."""
    slow_from: list[int] = []

    def slow_down(start: Start) -> None:
        start.wait_for_step(15)
        rank_1 = start.pid(1)
        os.kill(rank_1, signal.SIGSTOP)
        slow_from.append(start.steps[-1])  # the other rank ends that step at most
        with suppress(ProcessLookupError):
            while "rank 1 on " not in start.said():
                os.kill(rank_1, signal.SIGCONT)
                continued = time.perf_counter()
                time.sleep(0.004)
                os.kill(rank_1, signal.SIGSTOP)
                time.sleep(4 * (time.perf_counter() - continued))
            os.kill(rank_1, signal.SIGCONT)

    run = site.run(f"train_samples={STEPS * ROWS}", outside=slow_down)
    named = next(event for event in run.events("slow rank") if event["step"] > slow_from[0])
    assert named["details"]["rank"] == 1
    assert named["details"]["host"] == socket.gethostname()
    assert named["step"] <= slow_from[0] + 20
    assert named["message"] in run.starts[0].said()
    assert run.steps[-1]["step"] == STEPS
