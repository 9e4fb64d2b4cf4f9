"""The grid: every process has one place on the tensor, the pipeline and the data axis. The only reader of Megatron's
parallel state.

Ranks count tensor first, then data, then pipeline, so that a tensor-parallel group sits inside one node:

    TP 2 x PP 2 x DP 2     data 0     data 1
    stage 0                0 1        2 3
    stage 1                4 5        6 7
"""

import hashlib
import math
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from megatron.core.process_groups_config import ProcessGroupCollection
from torch.distributed import ProcessGroup, Store

from glm130b.config.sections import ParallelConfig


@dataclass(frozen=True)
class Axis:
    """This process's place on one axis of the grid."""

    rank: int
    size: int
    group: ProcessGroup


@dataclass(frozen=True)
class Topology:
    """This process's place in the grid and the groups it talks through."""

    rank: int
    world_size: int
    device: torch.device
    tensor: Axis
    pipeline: Axis
    data: Axis
    model: Axis
    """Tensor x pipeline: the processes that hold one replica of the model together."""
    embedding_group: ProcessGroup | None
    """First and last stage, which hold the tied embedding; None on a middle stage."""
    groups: ProcessGroupCollection
    """The same groups in the form that Megatron-core's modules and schedules take."""

    @property
    def is_first_stage(self) -> bool:
        return self.pipeline.rank == 0

    @property
    def is_last_stage(self) -> bool:
        return self.pipeline.rank == self.pipeline.size - 1

    @property
    def reports_loss(self) -> bool:
        """One process per data-parallel replica speaks for the losses: they exist on the last stage, alike on its
        tensor ranks."""
        return self.is_last_stage and self.tensor.rank == 0


def connect(
    parallel: ParallelConfig,
    *,
    device: torch.device,
    store: Store | None = None,
    init_method: str = "env://",
    rank: int,
    world_size: int,
    timeout: timedelta,
) -> Topology:
    """Join the job's process group and build the grid. ``world_size`` has been checked to fit ``parallel``.

    The processes find each other through ``store``, which holds nothing of an earlier attempt, or as ``init_method``
    says.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    meeting_point = {"store": store} if store else {"init_method": init_method}
    dist.init_process_group(backend, **meeting_point, rank=rank, world_size=world_size, timeout=timeout)
    parallel_state.initialize_model_parallel(
        parallel.tensor,
        parallel.pipeline,
        virtual_pipeline_model_parallel_size=parallel.virtual_stages if parallel.virtual_stages > 1 else None,
        create_gloo_process_groups=False,
        distributed_timeout_minutes=math.ceil(timeout.total_seconds() / 60),
    )
    groups = ProcessGroupCollection.use_mpu_process_groups()
    topology = Topology(
        rank=rank,
        world_size=world_size,
        device=device,
        tensor=_axis(groups.tp),
        pipeline=_axis(groups.pp),
        data=_axis(groups.dp),
        model=_axis(groups.mp),
        embedding_group=groups.embd if parallel_state.is_rank_in_embedding_group(ignore_virtual=True) else None,
        groups=groups,
    )
    seed_dropout(0, topology)  # Megatron-core's layers ask for the random streams when they are built
    return topology


def disconnect() -> None:
    """Leave the process group and forget the grid."""
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


def seed_dropout(seed: int, topology: Topology) -> None:
    """Seed the two random streams of dropout: alike over the tensor axis for replicated activations, different for
    split heads.

    Called with a seed derived from the step, it makes the masks a function of the step, so that a checkpoint needs no
    random state.
    """
    place = f"{seed}/{topology.pipeline.rank}/{topology.data.rank}"
    digest = hashlib.blake2b(place.encode(), digest_size=7).digest()  # any two seeds and places far apart
    tensor_parallel.model_parallel_cuda_manual_seed(int.from_bytes(digest, "big"), force_reset_rng=True)


def _axis(group: ProcessGroup) -> Axis:
    return Axis(rank=group.rank(), size=group.size(), group=group)
