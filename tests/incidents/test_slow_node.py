"""A replaced node that was slower than the rest: 2022-05-21."""

import os
import signal
import socket
import time

import psutil

from tests.harness.incidents import Start
from tests.incidents.conftest import ROWS, Site

STEPS = 60


def test_a_rank_slowed_five_fold_is_named_within_20_steps(site: Site) -> None:
    """SIGSTOP and SIGCONT in turns: the process gets a fifth of its time."""
    slow_from: list[int] = []

    def slow_down(start: Start) -> None:
        start.wait_for_step(15)
        slow_from.append(start.steps[-1])
        while psutil.pid_exists(start.pid(1)) and "slow rank" not in start.said():
            os.kill(start.pid(1), signal.SIGSTOP)
            time.sleep(0.016)
            os.kill(start.pid(1), signal.SIGCONT)
            time.sleep(0.004)

    run = site.run(f"train_samples={STEPS * ROWS}", outside=slow_down)
    named = run.events("slow rank")[0]
    assert named["details"]["rank"] == 1
    assert named["details"]["host"] == socket.gethostname()
    assert slow_from[0] < named["step"] <= slow_from[0] + 20
    assert named["message"] in run.starts[0].said()
    assert run.steps[-1]["step"] == STEPS
