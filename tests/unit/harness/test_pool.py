"""The pool under every test of several processes: results by rank, failures with their trace, no hang."""

import os
import sys
import time

import pytest
import torch
import torch.distributed as dist

from glm130b.config.errors import UserError
from glm130b.environment import Launch
from tests.harness.pool import run_distributed


def sum_of_ranks(launch: Launch, factor: float) -> tuple[int, float]:
    dist.init_process_group("gloo")
    value = torch.tensor(factor * launch.rank)
    dist.all_reduce(value)
    return launch.rank, value.item()


def fail_on_one_rank(launch: Launch) -> None:
    dist.init_process_group("gloo")
    if launch.rank == 1:
        raise UserError(["first problem", "second problem"])
    dist.barrier()


def hang_on_one_rank(launch: Launch) -> int:
    if launch.rank == 1:
        time.sleep(60)
    return os.getpid()


def die_on_one_rank(launch: Launch) -> None:
    if launch.rank == 1:
        os._exit(7)
    time.sleep(60)


def large_tensor(launch: Launch) -> torch.Tensor:
    return torch.full((1_000_000,), float(launch.rank))


def threads_and_imports(launch: Launch) -> tuple[int, str]:
    assert "glm130b.pretrain" in sys.modules, "the fork server has not preloaded the product"
    return torch.get_num_threads(), os.environ["GLOO_SOCKET_IFNAME"]


@pytest.mark.parametrize("world_size", [1, 4])
def test_results_come_by_rank_after_a_collective(world_size: int) -> None:
    total = 2.5 * sum(range(world_size))
    assert run_distributed(sum_of_ranks, world_size, 2.5) == [(rank, total) for rank in range(world_size)]


def test_an_exception_comes_back_with_its_traceback_and_ends_the_others() -> None:
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        run_distributed(fail_on_one_rank, 2)
    assert caught.value.problems == ("first problem", "second problem")
    assert "on rank 1" in str(caught.value.__cause__)
    assert "in fail_on_one_rank" in str(caught.value.__cause__)
    assert time.monotonic() - started < 30


def test_a_hanging_rank_is_named_after_the_timeout() -> None:
    with pytest.raises(TimeoutError, match=r"ranks \[1\] of 2 gave no answer within 10 s"):
        run_distributed(hang_on_one_rank, 2, timeout=10)


def test_a_rank_that_dies_is_named_with_its_status() -> None:
    with pytest.raises(RuntimeError, match="rank 1 ended without an answer, status 7"):
        run_distributed(die_on_one_rank, 2)


def test_results_larger_than_a_pipe_arrive_whole() -> None:
    first, second = run_distributed(large_tensor, 2)
    assert first.sum() == 0
    assert second.sum() == 1_000_000


def test_processes_have_one_thread_the_loopback_and_the_product_preloaded() -> None:
    assert run_distributed(threads_and_imports, 2) == [(1, "lo")] * 2
