"""The product beside the oracle: the same weights, rows and schedules for both.

The functions with a ``launch`` run inside the processes of a test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from glm130b.config.model import ModelConfig
from glm130b.config.sections import RunConfig
from glm130b.data.batch import MicroBatch, collate
from glm130b.environment import Launch
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.model.segments import PackedSegments
from glm130b.model.sharding import parameter_shards
from glm130b.model.stage import Stage
from glm130b.parallel.topology import disconnect
from glm130b.training.schedules import Schedules
from tests.harness.reference_glm import ReferenceGLM
from tests.harness.reference_training import Step, StepResult, backward, train
from tests.harness.stage import initial_stage
from tests.harness.synthetic import SyntheticRows
from tests.harness.training import Gradients, StepNumbers, live_run


def scattered_weights(model: ModelConfig) -> dict[str, Tensor]:
    """Whole weights by name with a value of its own for everything, biases and norms too; activations stay near 1."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in ReferenceGLM(model).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("norm.weight"):
            weights[name] = 1 + 0.3 * values
        else:
            weights[name] = values * (0.3 if len(shape) == 1 or "embedding" in name else shape[1] ** -0.5)
    return weights


def oracle(config: RunConfig, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> ReferenceGLM:
    """The reference with these whole weights."""
    model = ReferenceGLM(config.model)
    model.load_state_dict(weights)
    return model.to(dtype)


def oracle_steps(config: RunConfig, weights: Mapping[str, Tensor], count: int) -> list[StepResult]:
    """Losses and gradient norms of the oracle's first ``count`` steps from these weights, with the run's optimizer."""
    schedules, rows, batch = Schedules(config), SyntheticRows(), config.batch.global_size
    steps = [
        Step(
            rows=[rows[sample] for sample in range(first, first + batch)],
            learning_rate=schedules.learning_rate(first),
            input_alpha=schedules.embedding_gradient_alpha(first),
            logit_alpha=schedules.embedding_gradient_alpha(first),
        )
        for first in range(0, count * batch, batch)
    ]
    return train(
        oracle(config, weights),
        steps,
        optimizer=config.optimizer.name,
        clip_gradient_norm=config.optimizer.clip_gradient_norm,
        weight_decay=config.optimizer.weight_decay,
    )


def oracle_gradients(
    config: RunConfig, weights: Mapping[str, Tensor], shrink: ShrinkFactors, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Whole gradients by name over the first step's rows."""
    model, rows = oracle(config, weights, dtype), SyntheticRows()
    first_rows = [rows[sample] for sample in range(config.batch.global_size)]
    backward(model, Step(first_rows, 0.0, input_alpha=shrink.input_side, logit_alpha=shrink.logit_side))
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@torch.no_grad()
def oracle_logits(config: RunConfig, weights: Mapping[str, Tensor]) -> Tensor:
    """Logits [tokens, V] of the first step's rows, padding left out."""
    batch = first_batch(config)
    logits_BSV: Tensor = oracle(config, weights)(batch.tokens_BS, batch.positions_B2S, batch.segments)
    return logits_BSV[in_segments(batch)]


def first_batch(config: RunConfig) -> MicroBatch:
    """All rows of the first step at once."""
    return collate([SyntheticRows()[sample] for sample in range(config.batch.global_size)])


def in_segments(batch: MicroBatch) -> Tensor:
    """Which tokens are not padding, bool [B, S]; what a model makes of padding is nobody's concern."""
    inside_BS = torch.zeros_like(batch.tokens_BS, dtype=torch.bool)
    for row, segments in enumerate(batch.segments):
        for segment in segments:
            inside_BS[row, segment.start : segment.end] = True
    return inside_BS


@torch.no_grad()
def load_whole_(stage: Stage, weights: Mapping[str, Tensor]) -> None:
    """Give a stage its pieces of whole weights, in any layout."""
    for shard in parameter_shards(stage):
        for piece in shard.pieces:
            local = shard.parameter.narrow(shard.dim, piece.local_start, piece.length)
            local.copy_(weights[shard.name].narrow(shard.dim, piece.whole_start, piece.length))


@dataclass(frozen=True)
class Measured:
    """What one process of the product found."""

    steps: list[StepNumbers]
    """Of training, from the initial weights."""
    gradients: Gradients
    """Over the first step's rows, in the given weights."""


def measure(
    launch: Launch, config: RunConfig, weights: Mapping[str, Tensor], shrink: ShrinkFactors, count: int
) -> Measured:
    """Train for ``count`` steps; then put the model in the given weights and take its gradients."""
    run = live_run(config, launch)
    _, steps = run.take_steps(count)
    load_whole_(run.stage, weights)
    run.accumulate_gradients(shrink)
    gradients = run.gradient_pieces()
    disconnect()
    return Measured(steps, gradients)


def product_logits(launch: Launch, config: RunConfig, weights: Mapping[str, Tensor]) -> Tensor:
    """Logits [tokens, V] of the first step's rows, padding left out, in one process."""
    batch = first_batch(config)
    with initial_stage(launch, config) as stage, torch.no_grad():
        load_whole_(stage, weights)
        logits_BSV: Tensor = stage.eval()(batch.tokens_BS, batch.positions_B2S, PackedSegments(batch.segments))
    return logits_BSV[in_segments(batch)]


def assert_gradients(
    ranks: Sequence[Gradients], expected: Mapping[str, Tensor], config: RunConfig, *, atol: float, rtol: float
) -> None:
    """Every rank's pieces are the pieces of the whole gradients, and all ranks together cover them.

    Ranks count tensor, data, pipeline. Data-parallel ranks hold the gradients of their own rows, which ZeRO averages;
    every other rank must hold its piece of the whole gradient by itself, replicated parameters too.
    """
    tensor, data = config.parallel.tensor, config.parallel.data or 1
    uncovered = {name: torch.ones_like(gradient) for name, gradient in expected.items()}
    for first in (rank for rank in range(len(ranks)) if rank // tensor % data == 0):
        replicas = [ranks[first + tensor * replica] for replica in range(data)]
        for name, parts in replicas[0].items():
            for index, (dim, start, values) in enumerate(parts):
                mean = torch.stack([replica[name][index][2] for replica in replicas]).mean(dim=0)
                whole = expected[name].narrow(dim, start, values.shape[dim])
                torch.testing.assert_close(
                    mean.to(whole.dtype),
                    whole,
                    atol=atol,
                    rtol=rtol,
                    msg=partial("{} on rank {}: {}".format, name, first),
                )
                uncovered[name].narrow(dim, start, values.shape[dim]).zero_()
    assert not [name for name, left in uncovered.items() if left.any()]
