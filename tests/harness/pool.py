"""Runs a function on several gloo processes of this machine, each in the place that a launcher would give it.

The processes are forks of a server that has imported torch, Megatron-core and DeepSpeed: the server costs a session
four seconds, a process 0.02 s, where a fresh interpreter takes four. They are new for every call, so no test sees
another's process groups or random state.
"""

import faulthandler
import multiprocessing
import os
import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

import torch
from torch.distributed import TCPStore

from glm130b.environment import Launch, prepare_environment

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.harness.preload"])


def run_distributed(function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 60.0) -> list[Any]:
    """``function(launch, *args)`` on ``world_size`` processes at once; what it returned, by rank.

    The function stands at the top of a module; arguments and results are pickled. It finds the environment of a
    launched process, so ``torch.distributed.init_process_group`` and ``glm130b.parallel.topology.connect`` work
    as they are.

    Raises what the first failing rank raised, with that rank's traceback as its cause, and ``TimeoutError`` when a rank
    has not answered after ``timeout`` seconds (the stacks of the hanging ranks are on stderr). No process outlives the
    call.
    """
    # The parent keeps the store, as torchrun does: the system chooses a free port and nobody can take it in between.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=timeout))
    job = pickle.dumps((function, args))
    processes, answers = [], []
    try:
        for rank in range(world_size):
            answer, ask = _CONTEXT.Pipe(duplex=False)
            launch = Launch(rank=rank, local_rank=rank, world_size=world_size)
            process = _CONTEXT.Process(target=_work, args=(launch, store.port, ask, job, timeout), name=f"rank {rank}")
            process.start()
            ask.close()
            processes.append(process)
            answers.append(answer)
        return _gather(processes, answers, timeout)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _gather(processes: Sequence[ForkServerProcess], answers: Sequence[Connection], timeout: float) -> list[Any]:
    deadline = time.monotonic() + timeout
    ranks = {answer: rank for rank, answer in enumerate(answers)}
    results: dict[int, Any] = {}
    while len(results) < len(answers):
        ready = wait([answer for answer, rank in ranks.items() if rank not in results], deadline - time.monotonic())
        if not ready:
            missing = sorted(set(ranks.values()) - set(results))
            raise TimeoutError(f"ranks {missing} of {len(answers)} gave no answer within {timeout:g} s")
        for answer in ready:
            rank = ranks[answer]  # type: ignore[index]
            try:
                value, error, trace = pickle.loads(answer.recv_bytes())  # type: ignore[union-attr]
            except EOFError:
                processes[rank].join()
                raise RuntimeError(f"rank {rank} ended without an answer, status {processes[rank].exitcode}") from None
            if error is not None:
                raise error from RuntimeError(f"on rank {rank}:\n{trace}")
            results[rank] = value
    return [results[rank] for rank in range(len(answers))]


def _work(launch: Launch, port: int, ask: Connection, job: bytes, timeout: float) -> None:
    """One rank, in its own process."""
    faulthandler.dump_traceback_later(0.9 * timeout)
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",  # rank 0, too, joins the parent's store
        TORCHELASTIC_RESTART_COUNT="0",
    )
    prepare_environment(launch)
    torch.set_num_threads(1)
    try:
        function, args = pickle.loads(job)
        answer = pickle.dumps((function(launch, *args), None, None))
    except BaseException as error:
        answer = _failure(error)
    ask.send_bytes(answer)


def _failure(error: BaseException) -> bytes:
    trace = traceback.format_exc()
    try:
        pickled = pickle.dumps((None, error, trace))
        pickle.loads(pickled)
    except Exception:  # an exception that cannot travel is told by its trace
        return pickle.dumps((None, RuntimeError(repr(error)), trace))
    return pickled
