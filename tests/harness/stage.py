"""One process's stage of a model inside a job of several, without the optimizer and the schedule around it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import nn

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.glm import GLM
from glm130b.model.stage import Stage
from glm130b.parallel.device import open_device
from glm130b.parallel.placement import build_stage
from glm130b.parallel.topology import Topology, connect, disconnect

LAYOUTS = {"TP1": (1, 1, 1), "TP2": (2, 1, 1), "PP2": (1, 2, 1), "TP2 PP2": (2, 2, 1), "TP2 PP2 DP2": (2, 2, 2)}
"""(tensor, pipeline, data)."""


def in_layout(config: RunConfig, layout: str) -> tuple[RunConfig, int]:
    """The config laid out so, and the number of processes it takes."""
    tensor, pipeline, data = LAYOUTS[layout]
    parallel = config.parallel.model_copy(update={"tensor": tensor, "pipeline": pipeline, "data": data})
    return config.model_copy(update={"parallel": parallel}), tensor * pipeline * data


@contextmanager
def joined(launch: Launch, config: RunConfig) -> Iterator[Topology]:
    """Inside the job for as long as the block lasts."""
    device = open_device(local_rank=0)
    topology = connect(
        config.parallel, device=device, rank=launch.rank, world_size=launch.world_size, timeout=timedelta(minutes=1)
    )
    yield topology
    disconnect()


@contextmanager
def initial_stage(launch: Launch, config: RunConfig) -> Iterator[Stage]:
    """This process's stage with its initial weights, on the CPU."""
    with joined(launch, config) as topology:
        yield build_stage(config, topology)


@contextmanager
def initial_chunk(launch: Launch, config: RunConfig) -> Iterator[GLM]:
    """The only chunk of this process's stage."""
    with initial_stage(launch, config) as stage:
        (chunk,) = stage
        yield chunk


@torch.no_grad()
def scatter_parameters_(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter a value of its own, biases and LayerNorms too, so that a test sees each of them."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
