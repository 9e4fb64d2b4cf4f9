"""What a step measures does not depend on the layout, and names the rank that was slow."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.data.batch import collate
from glm130b.data.batches import micro_batches
from glm130b.data.objectives.row import Row, Segment
from glm130b.environment import Launch
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.parallel.topology import disconnect
from glm130b.training.metrics import Record
from glm130b.training.objective_loss import LossSums, forward_step, mean_losses
from glm130b.training.progress import Progress
from tests.harness.pool import run_distributed
from tests.harness.records import without_machine
from tests.harness.reference_comparison import load_whole_, oracle, scattered_weights
from tests.harness.synthetic import SyntheticRows, small_config
from tests.harness.training import live_run

LAYOUTS: dict[str, dict[str, Any]] = {
    "one process": {},
    "TP2": {"tensor": 2},
    "TP2, cut sequence": {"tensor": 2, "sequence_parallel": True},
    "PP2, two virtual stages": {"pipeline": 2, "virtual_stages": 2},
    "PP2 DP2, all recomputed": {"pipeline": 2, "data": 2, "recompute": "full"},
    "DP2, attention recomputed": {"data": 2, "recompute": "selective"},
}
NUM_LAYERS = 4


class FullRows(SyntheticRows):
    """Rows without padding, of which every model makes something else; they say that they are of all kinds."""

    def __getitem__(self, sample_index: int) -> Row:
        full, named = super().__getitem__(4 * sample_index + 3), super().__getitem__(sample_index)
        segments = (*full.segments[:-1], Segment(24, 4, 4))  # to the end of the row
        return replace(full, segments=segments, objective=named.objective, source=named.source)


def config_of(layout: str) -> RunConfig:
    return small_config(parallel=LAYOUTS[layout], logging={"activations": True})


def measured(launch: Launch, config: RunConfig) -> tuple[dict[str, float], Mapping[str, float]]:
    """A step's record from scattered weights, and the losses of an evaluation before it."""
    run, batch = live_run(config, launch, FullRows()), config.batch
    data = run.topology.data
    load_whole_(run.stage, scattered_weights(config.model))
    others = micro_batches(
        FullRows(), first_sample=80, batch_size=8, micro_size=2, data_rank=data.rank, data_size=data.size
    )
    reports = run.pipeline.evaluate(
        forward_step(run.topology.device, ShrinkFactors()),
        others,
        num_micro_batches=batch.global_size // (batch.micro_size * data.size),
        micro_size=batch.micro_size,
    )
    validation = mean_losses(reports, LossSums(config), run.topology)
    _, numbers = run.take_steps(1)
    disconnect()
    return numbers[0], validation


@cache
def alone() -> tuple[dict[str, float], Mapping[str, float]]:
    return run_distributed(measured, 1, config_of("one process"))[0]


@torch.no_grad()
def reference_scales() -> dict[str, float]:
    """Plain PyTorch: the root mean square of every layer's output over the first step's rows."""
    config, found = small_config(), {}
    model = oracle(config, scattered_weights(config.model), torch.float64)
    for index, layer in enumerate(model.decoder.layers):

        def keep(_layer: object, _inputs: object, out_BSH: Tensor, index: int = index) -> None:
            found[f"activation_scale/layer.{index}"] = out_BSH.square().mean().sqrt().item()

        layer.register_forward_hook(keep)
    batch = collate([FullRows()[sample] for sample in range(config.batch.global_size)])
    model(batch.tokens_BS, batch.positions_B2S, batch.segments)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_scales_are_those_of_one_process(layout: str) -> None:
    parallel = LAYOUTS[layout]
    world_size = parallel.get("tensor", 1) * parallel.get("pipeline", 1) * parallel.get("data", 1)
    train, validation = alone()
    losses = {name: value for name, value in train.items() if name.partition("/")[0] == "loss"}
    assert len(losses) == len(validation) == 7
    assert len(set(losses.values())) == 6  # the instructions are one source, and the rest is told apart
    scales = reference_scales()
    assert len(set(scales.values())) == NUM_LAYERS
    for numbers, evaluated in run_distributed(measured, world_size, config_of(layout)):
        assert {name: numbers[name] for name in losses} == pytest.approx(losses, abs=1e-6)
        assert evaluated == pytest.approx(validation, abs=1e-6)
        assert {name: numbers[name] for name in scales} == pytest.approx(scales, rel=1e-5)


class SlowRows(SyntheticRows):
    """Rows that take their time from sample 30 on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __getitem__(self, sample_index: int) -> Row:
        time.sleep(self.seconds if sample_index >= 30 else 0.0)
        return super().__getitem__(sample_index)


def slowed(launch: Launch, config: RunConfig, seconds: float) -> list[Record]:
    """Four steps: rank 1 is slow in the second, rank 0 in the third, and rank 1 waits for its rows in the fourth."""
    run = live_run(config, launch, SlowRows(seconds if launch.rank == 1 else 0.0))
    progress, records = Progress(), []
    for slow in (None, 1, 0, None):
        (chunk,) = run.stage
        hook = chunk.register_forward_pre_hook(lambda *_, slow=slow: time.sleep(seconds * (launch.rank == slow)))
        progress, record = run.stepper.step(progress)
        records.append(record)
        hook.remove()
    disconnect()
    return records


def test_the_rank_that_was_slow_is_named() -> None:
    seconds = 0.5
    first, second = run_distributed(slowed, 2, small_config(parallel={"data": 2}), seconds)
    for one, other in zip(first, second, strict=True):
        assert without_machine(one.values) == without_machine(other.values)
        for name in ("slowest_rank", "rank_seconds/max", "data_wait_seconds", "memory_resident_gib"):
            assert one.values[name] == other.values[name]
        assert one.values["rank_seconds/min"] < one.values["rank_seconds/max"]
        assert one.labels == other.labels == {"slowest_host": f"host-{one.values['slowest_rank']:.0f}"}
    assert [record.values["slowest_rank"] for record in first[1:]] == [1, 0, 1]
    assert first[3].values["data_wait_seconds"] >= 2 * seconds  # two rows, built one by one
