"""Norms of weights and of their change, against the weights before and after."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glm130b.environment import Launch
from glm130b.model.sharding import EMBEDDING, ParameterShard
from glm130b.parallel import weight_norms
from glm130b.parallel.ownership import Owned
from glm130b.parallel.parameter_parts import ParameterParts
from glm130b.parallel.weight_norms import WeightReader
from tests.harness.pool import run_distributed
from tests.harness.stage import joined
from tests.harness.synthetic import small_config

NAMES = (EMBEDDING, "decoder.layers.0.mlp.linear_fc1.weight", "decoder.layers.1.mlp.linear_fc1.weight")
LENGTHS, PADDING = (130, 70, 250), 3


class StepCount:
    """Counts how often it is read: with the fused kernel it lies on the GPU, and each time the host waits."""

    reads = 0

    def __float__(self) -> float:
        self.reads += 1
        return 1.0


def test_the_step_count_is_read_once_for_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_norms, "BUCKET_ELEMENTS", 16)
    flat, count = nn.Parameter(torch.ones(100)), StepCount()
    shards = [ParameterShard(name, flat, (100,), 0, (), False, False) for name in NAMES[:2]]
    owned = [
        Owned(shard, 0, start, 0, length=50, is_counted=True) for shard, start in zip(shards, (0, 50), strict=True)
    ]
    topology: Any = None  # for what is told to others
    reader = WeightReader(owned, ParameterParts(small_config().model, owned), [flat], topology)
    moments: Any = {"step": count, "exp_avg": torch.ones(100), "exp_avg_sq": torch.ones(100)}
    reader.updated(0, torch.optim.AdamW([flat]).param_groups[0], {flat: moments})
    assert count.reads == 1


def read_steps(launch: Launch, optimizer: str) -> list[tuple[dict[str, float], list[Tensor], list[Tensor], Tensor]]:
    """Of each step (statistics, this rank's weights before it, their changes, the embedding's second moment)."""
    starts = (0, *itertools.accumulate(LENGTHS))
    shards = [ParameterShard(name, nn.Parameter(torch.zeros(0)), (0,), 0, (), False, False) for name in NAMES]
    owned = [
        Owned(shard, group=1, group_start=start, parameter_start=0, length=length, is_counted=True)
        for shard, start, length in zip(shards, starts, LENGTHS, strict=False)
    ]
    generator = torch.Generator().manual_seed(launch.rank)
    flat = nn.Parameter(torch.randn(starts[-1] + PADDING, generator=generator))
    options: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1}
    stepper: torch.optim.Optimizer = torch.optim.SGD([flat], **options)
    if optimizer == "adamw":
        stepper = torch.optim.AdamW([flat], betas=(0.8, 0.9), eps=1e-3, **options)
    steps = []
    with joined(launch, small_config(parallel={"data": 2})) as topology, pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_norms, "BUCKET_ELEMENTS", 64)
        parts = ParameterParts(small_config(model={"num_layers": 2}).model, owned)
        for _ in range(3):
            flat.grad = torch.randn(flat.shape, generator=generator)
            before = flat.detach().clone()
            reader = WeightReader(owned, parts, [torch.zeros(0), flat], topology)
            stepper.step()
            reader.updated(1, stepper.param_groups[0], stepper.state)
            weights, changes = ([part.of(each) for part in owned] for each in (before, flat.detach() - before))
            moment = stepper.state[flat].get("exp_avg_sq", torch.zeros(LENGTHS[0]))
            steps.append((reader.statistics(), weights, changes, moment[: LENGTHS[0]].clone()))
    return steps


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_norms_ratios_and_extremes_over_two_ranks(optimizer: str) -> None:
    for (ours, *first), (theirs, *second) in zip(*run_distributed(read_steps, 2, optimizer), strict=True):
        assert ours == theirs
        weights, changes = (
            [torch.cat(pair).double() for pair in zip(a, b, strict=True)]
            for a, b in zip(first[:2], second[:2], strict=True)
        )
        expected = {"parameter_norm": torch.cat(weights).norm(), "update_ratio": torch.cat(changes).norm()}
        for index in range(2):
            expected[f"parameter_norm/layer.{index}"] = weights[1 + index].norm()
            expected[f"update_ratio/layer.{index}"] = changes[1 + index].norm() / weights[1 + index].norm()
        expected["update_ratio"] = expected["update_ratio"] / expected["parameter_norm"]
        if optimizer == "adamw":
            lowest, highest = torch.aminmax(torch.cat([first[2], second[2]]))
            expected |= {"second_moment/embedding_min": lowest, "second_moment/embedding_max": highest}
        assert ours == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-5)
