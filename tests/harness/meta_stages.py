"""Every stage of a model of any size on one process, without memory: what each would hold, as its own rank sees it."""

from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.sharding import parameter_shards
from glm130b.parallel.device import open_device
from glm130b.parallel.placement import build_stage
from glm130b.parallel.topology import Topology, connect, disconnect


class StageCount(NamedTuple):
    """What one tensor rank of a stage holds."""

    layers: int
    local: int
    """Parameters on the rank."""
    whole: int
    """Parameters of the whole model that the stage owns: unsharded, without the tied copy."""


def count_stages(launch: Launch, config: RunConfig) -> list[StageCount]:
    """The first tensor rank of every stage, one after the other. Run by ``run_distributed`` on one process."""
    open_device(local_rank=0)
    counts = []
    for topology in _topologies(config):
        with topology.device:  # where torch makes norms and tables
            stage = build_stage(config, topology, initialize=False)
        assert all(parameter.is_meta for parameter in stage.parameters())
        owned = [shard for shard in parameter_shards(stage) if not shard.is_tied_copy]
        counts.append(
            StageCount(
                layers=sum(len(chunk.decoder.layers) for chunk in stage),
                local=sum(parameter.numel() for parameter in stage.parameters()),
                whole=sum(torch.Size(shard.whole_shape).numel() for shard in owned),
            )
        )
    return counts


def _topologies(config: RunConfig) -> Iterator[Topology]:
    """The places of the first tensor ranks of one replica, in process groups that only look like some."""
    parallel, meta, real_init = config.parallel, torch.device("meta"), dist.init_process_group
    replica = parallel.tensor * parallel.pipeline
    one_replica = parallel.model_copy(update={"data": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "current_device", lambda: meta)  # where Megatron-core makes its weights
        patch.setattr(
            dist,
            "init_process_group",
            lambda *_, rank, world_size, **__: real_init("fake", store=FakeStore(), rank=rank, world_size=world_size),
        )
        for rank in range(0, replica, parallel.tensor):
            yield connect(one_replica, device=meta, rank=rank, world_size=replica, timeout=timedelta(minutes=1))
            disconnect()
