"""Gradient norms of every layer, from the gradients themselves: what a layout must not change."""

import torch
import torch.distributed as dist

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.sharding import parameter_shards
from glm130b.parallel.topology import disconnect
from glm130b.parallel.zero import Permit
from tests.harness.training import LiveRun, StepNumbers, live_run


def train_with_layer_norms(launch: Launch, config: RunConfig, count: int) -> list[StepNumbers]:
    """The numbers of the first ``count`` steps with, as ``gradient_norm/<layer>``, the norms that ``layer_norms``
    reads before each optimizer step. Not for ZeRO 2, which has no whole gradients then."""
    run = live_run(config, launch)
    norms: list[dict[str, float]] = []
    step = run.engine.step

    def observed(learning_rate: float, *, permit: Permit) -> object:
        norms.append(layer_norms(run))
        return step(learning_rate, permit=permit)

    run.engine.step = observed  # type: ignore[method-assign, assignment]
    _, numbers = run.take_steps(count)
    disconnect()
    return [
        numbers_of_step | {f"gradient_norm/{layer}": norm for layer, norm in norms_of_step.items()}
        for numbers_of_step, norms_of_step in zip(numbers, norms, strict=True)
    ]


def layer_norms(run: LiveRun) -> dict[str, float]:
    """L2 norm of the unscaled mean gradient of every layer (``decoder.layers.3``), the embedding, the final norm and
    the head, over all the ranks that hold a part of it. Collective."""
    data, model = run.topology.data, run.topology.model
    squares: dict[str, float] = {}
    for shard in parameter_shards(run.stage):
        gradient = run.engine.gradient_of(shard.parameter).double()
        dist.all_reduce(gradient, group=data.group)
        gradient /= data.size * run.engine.loss_scale
        is_counted = not shard.is_tied_copy and (run.topology.tensor.rank == 0 or not shard.is_replicated)
        square = float(gradient.square().sum()) if is_counted else 0.0
        layer = ".".join(shard.name.split(".")[: 3 if ".layers." in shard.name else 2])
        squares[layer] = squares.get(layer, 0.0) + square
    parts: list[dict[str, float]] = [{} for _ in range(model.size)]
    dist.all_gather_object(parts, squares, group=model.group)
    layers = sorted({layer for part in parts for layer in part})
    return {layer: torch.tensor([part.get(layer, 0.0) for part in parts]).sum().sqrt().item() for layer in layers}
