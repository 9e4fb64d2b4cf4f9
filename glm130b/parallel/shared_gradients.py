"""One embedding, two copies: the first stage looks tokens up in it, the last projects onto it."""

from collections.abc import Callable

import torch.distributed as dist
from torch import Tensor, nn

from glm130b.model.glm import GLM
from glm130b.parallel.topology import Topology


def mark_tied_copy(model: GLM) -> None:
    """Tell DeepSpeed to count the last stage's copy once in the gradient norm. Before the engine is built, or the norm
    is wrong, silently."""
    if model.last_stage and not model.first_stage:
        model.output_layer.weight.ds_pipe_replicated = True


def sum_tied_gradients(model: GLM, topology: Topology, gradient_of: Callable[[nn.Parameter], Tensor]) -> None:
    """Add the two shares of the embedding's gradient, so that both copies take the same step."""
    if topology.pipeline.size > 1 and model.tied_weight is not None:
        dist.all_reduce(gradient_of(model.tied_weight), group=topology.embedding_group)
