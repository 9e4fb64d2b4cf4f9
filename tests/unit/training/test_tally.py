"""Sums over all processes and the numbers of each, from one reduction."""

from unittest.mock import patch

import torch.distributed as dist

from glm130b.environment import Launch
from glm130b.training.tally import add_up, means
from tests.harness.pool import run_distributed
from tests.harness.stage import joined
from tests.harness.synthetic import small_config

Told = tuple[list[float], list[tuple[float, ...]]]


def told(launch: Launch, world_size: int) -> tuple[Told, Told, int]:
    """Two tallies, and how many reductions they took."""
    rank = float(launch.rank)
    with joined(launch, small_config(parallel={"data": world_size})) as topology:
        with patch.object(dist, "all_reduce", wraps=dist.all_reduce) as reduce:
            both = add_up([1.0, rank], [10 * rank, 0.1, -rank], topology)
            sums_alone = add_up([0.5], (), topology)
        return both, sums_alone, reduce.call_count


def test_sums_are_of_all_and_slots_of_each() -> None:
    for both, sums_alone, reductions in run_distributed(told, 3, 3):
        assert both == ([3.0, 3.0], [(0.0, 0.1, 0.0), (10.0, 0.1, -1.0), (20.0, 0.1, -2.0)])
        assert sums_alone == ([1.5], [])
        assert reductions == 2


def test_what_nobody_counted_has_no_mean() -> None:
    assert means(("a", "b", "c"), (3.0, 2.0, 0.0, 0.0, 0.0, 4.0)) == {"a": 1.5, "c": 0.0}
