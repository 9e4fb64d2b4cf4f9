"""Parameters that several ranks of one replica hold whole: every copy must get the whole gradient, be counted once, and
stay the same.

Two kinds. The tied embedding has a copy on the first and one on the last stage, each with its share of the gradient.
Under sequence parallelism the norms and the biases behind a row-parallel product act on a part of the sequence on each
tensor rank, so each has its part of the gradient. DeepSpeed knows of neither, and Megatron-core would add them up only
inside a data-parallel wrapper of its own.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glm130b.model.stage import Stage
from glm130b.parallel.topology import Topology


def mark_tied_copy(stage: Stage) -> None:
    """Tell DeepSpeed to count the last stage's copy once in the gradient norm. Before the engine is built, or the norm
    is wrong, silently."""
    for chunk in stage:
        if chunk.tied_weight is not None and not chunk.first_stage:
            chunk.tied_weight.ds_pipe_replicated = True  # type: ignore[attr-defined]


def sum_shared_gradients(stage: Stage, topology: Topology, gradient_of: Callable[[nn.Parameter], Tensor]) -> None:
    """Add up the shares of every shared parameter's gradient, after the last micro-batch. Collective over a replica."""
    split = [p for p in stage.parameters() if getattr(p, "sequence_parallel", False)]
    if split:
        _all_reduce_together([gradient_of(parameter) for parameter in split], topology.tensor.group)
    if topology.pipeline.size > 1 and topology.embedding_group is not None:
        for chunk in stage:
            if chunk.tied_weight is not None:
                dist.all_reduce(gradient_of(chunk.tied_weight), group=topology.embedding_group)


def renew_tied_copy(stage: Stage, topology: Topology) -> None:
    """Give the last stage the first one's embedding, after an update. Collective over the embedding group.

    The copies' gradients are the same on each data rank; but ZeRO sums them over the data axis in an order that depends
    on what else a stage holds, so over more than two ranks the copies would drift apart by roundings. The last stage's
    master of it is never used again; a checkpoint has the first one's.
    """
    if topology.pipeline.size == 1 or topology.embedding_group is None:
        return
    for chunk in stage:
        if chunk.tied_weight is not None:
            first_stage = dist.get_process_group_ranks(topology.embedding_group)[0]
            dist.broadcast(chunk.tied_weight.data, src=first_stage, group=topology.embedding_group)


def _all_reduce_together(gradients: list[Tensor], group: dist.ProcessGroup) -> None:
    """One collective for many small tensors; they must be of one dtype, as all gradients of a run are."""
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat, group=group)
    for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))
