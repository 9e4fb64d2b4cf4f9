"""The grid is the picture in its docstring, and the dropout streams follow it."""

from itertools import combinations
from typing import Any

import pytest
import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from torch import Tensor

from glm130b.config.derived import data_rank
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel.topology import Topology, seed_dropout
from tests.harness.pool import run_distributed
from tests.harness.stage import in_layout, joined
from tests.harness.synthetic import small_config

PICTURE = """
TP 2 x PP 2 x DP 2     data 0     data 1
stage 0                0 1        2 3
stage 1                4 5        6 7
"""


def place(launch: Launch, config: RunConfig) -> dict[str, Any]:
    """One process's place, in plain values."""
    with joined(launch, config) as topology:
        axes = {name: getattr(topology, name) for name in ("tensor", "pipeline", "data", "model")}
        embedding = topology.embedding_group
        return {
            "rank": topology.rank,
            "world_size": topology.world_size,
            "device": topology.device,
            "first": topology.is_first_stage,
            "last": topology.is_last_stage,
            "reports_loss": topology.reports_loss,
            "embedding": embedding and dist.get_process_group_ranks(embedding),
            "places": {name: (axis.rank, axis.size) for name, axis in axes.items()},
            "members": {name: dist.get_process_group_ranks(axis.group) for name, axis in axes.items()},
        }


def test_every_process_stands_where_the_picture_says() -> None:
    config, world_size = in_layout(small_config(), "TP2 PP2 DP2")
    places = run_distributed(place, world_size, config)
    stages = [line.split()[2:] for line in PICTURE.strip().splitlines()[1:]]
    for rank, there in enumerate(places):
        pipeline = next(stage for stage, ranks in enumerate(stages) if str(rank) in ranks)
        data, tensor = divmod(stages[pipeline].index(str(rank)), 2)
        assert (there["rank"], there["world_size"], there["device"]) == (rank, 8, torch.device("cpu"))
        assert there["places"]["tensor"] == (tensor, 2)
        assert there["places"]["pipeline"] == (pipeline, 2)
        assert there["places"]["data"] == (data, 2)
        assert data_rank(config, rank, data_size=2) == data
        assert there["places"]["model"][1] == 4
        assert (there["first"], there["last"]) == (pipeline == 0, pipeline == 1)
    assert places[0]["members"] == {"tensor": [0, 1], "data": [0, 2], "pipeline": [0, 4], "model": [0, 1, 4, 5]}
    assert places[7]["members"] == {"tensor": [6, 7], "data": [5, 7], "pipeline": [3, 7], "model": [2, 3, 6, 7]}
    assert [there["embedding"] for there in places] == [[0, 4], [1, 5], [2, 6], [3, 7]] * 2
    assert [there["rank"] for there in places if there["reports_loss"]] == [4, 6]  # one of each replica


def test_a_middle_stage_is_in_no_embedding_group() -> None:
    places = run_distributed(place, 3, small_config(model={"num_layers": 3}, parallel={"pipeline": 3}))
    assert [there["embedding"] for there in places] == [[0, 2], None, [0, 2]]
    assert [there["reports_loss"] for there in places] == [False, False, True]


def test_one_process_is_a_whole_grid() -> None:
    (there,) = run_distributed(place, 1, small_config())
    assert there["first"]
    assert there["last"]
    assert there["reports_loss"]
    assert set(there["places"].values()) == {(0, 1)}


def leave(launch: Launch, config: RunConfig) -> bool:
    with joined(launch, config):
        assert dist.is_initialized()
    return dist.is_initialized()


def test_disconnect_leaves_the_job() -> None:
    assert run_distributed(leave, 2, small_config(parallel={"data": 2})) == [False, False]


def draw(topology: Topology, seed: int) -> tuple[Tensor, Tensor]:
    """Sixteen numbers of each dropout stream: for replicated activations, and for split heads."""
    seed_dropout(seed, topology)
    replicated = torch.rand(16)
    with get_cuda_rng_tracker().fork():
        return replicated, torch.rand(16)


def streams(launch: Launch, config: RunConfig, seeds: list[int]) -> list[tuple[Tensor, Tensor]]:
    with joined(launch, config) as topology:
        return [draw(topology, seed) for seed in seeds]


def test_dropout_streams() -> None:
    config, world_size = in_layout(small_config(), "TP2 PP2 DP2")
    ranks = run_distributed(streams, world_size, config, [5, 6, 5])
    replicated = [rank[0][0] for rank in ranks]
    split = [rank[0][1] for rank in ranks]

    for first in range(0, 8, 2):  # both ranks of a tensor group
        assert torch.equal(replicated[first], replicated[first + 1])
    distinct = [*replicated[::2], *split]  # one stream a tensor group, and one a process
    assert not any(torch.equal(*pair) for pair in combinations(distinct, 2))
    for now, other_seed, again in ranks:
        assert all(torch.equal(*pair) for pair in zip(now, again, strict=True))
        assert not any(torch.equal(*pair) for pair in zip(now, other_seed, strict=True))


@pytest.mark.parametrize("seed", [0, 1234 + 219_726_562, 2**62])
def test_any_seed_will_do(seed: int) -> None:
    ((streams_here,),) = run_distributed(streams, 1, small_config(), [seed])
    assert all(0 < numbers.std() < 1 for numbers in streams_here)
