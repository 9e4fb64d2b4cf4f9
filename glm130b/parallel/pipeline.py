"""Megatron-core's pipeline schedule: forward and backward over the micro-batches of a step, 1F1B between the stages,
interleaved when a stage holds several chunks."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from glm130b.model.stage import Stage
from glm130b.parallel.topology import Topology
from glm130b.parallel.zero import ZeroEngine

Report = Any
"""What the last stage hands back of a micro-batch, as it is."""
LossFunction = Callable[[Tensor], tuple[Tensor, Report]]
"""Last stage's output -> (loss to minimise, report to hand back)."""
ForwardStep = Callable[[Iterator[Any], Any], tuple[Tensor, LossFunction]]
"""(micro-batches, model) -> (stage output, loss function); takes one micro-batch from the iterator."""


class Pipeline:
    """Runs one step's micro-batches through this process's stage.

    The schedule divides each loss by the number of micro-batches and ZeRO averages over the data axis, so a forward
    step returns the mean over its own rows and the step's gradient is that of the mean over all rows.
    """

    def __init__(self, stage: Stage, engine: ZeroEngine, topology: Topology, *, sequence_length: int) -> None:
        self._stage = stage
        self._engine = engine
        self._sequence_length = sequence_length
        self._schedule = get_forward_backward_func(
            pp_size=topology.pipeline.size, vp_size=len(stage) if len(stage) > 1 else None
        )
        for chunk in stage:
            chunk.config.grad_scale_func = engine.scale
            chunk.config.finalize_model_grads_func = lambda *_, **__: engine.finish_gradients()

    def train(
        self, forward_step: ForwardStep, micro_batches: Iterator[Any], *, num_micro_batches: int, micro_size: int
    ) -> list[Report]:
        """Accumulate the step's gradients. Reports of every micro-batch on the last stage, an empty list elsewhere."""
        return self._run(forward_step, micro_batches, num_micro_batches, micro_size, forward_only=False)

    @torch.no_grad()
    def evaluate(
        self, forward_step: ForwardStep, micro_batches: Iterator[Any], *, num_micro_batches: int, micro_size: int
    ) -> list[Report]:
        """Forward only, dropout off. Reports as ``train`` gives them."""
        self._stage.eval()
        try:
            return self._run(forward_step, micro_batches, num_micro_batches, micro_size, forward_only=True)
        finally:
            self._stage.train()

    def _run(
        self,
        forward_step: ForwardStep,
        micro_batches: Iterator[Any],
        num_micro_batches: int,
        micro_size: int,
        *,
        forward_only: bool,
    ) -> list[Report]:
        # Every chunk takes each micro-batch once, and needs an iterator of its own for that.
        iterators = itertools.tee(micro_batches, len(self._stage))
        # The raw chunks, never the engine: the schedule would take DeepSpeed's config for Megatron's.
        chunks = list(self._stage)
        return self._schedule(
            forward_step_func=lambda iterator, chunk: forward_step(iterator, self._engine.wrapper or chunk),
            data_iterator=list(iterators) if len(chunks) > 1 else iterators[0],
            model=chunks if len(chunks) > 1 else chunks[0],
            num_microbatches=num_micro_batches,
            seq_length=self._sequence_length,
            micro_batch_size=micro_size,
            forward_only=forward_only,
        )
