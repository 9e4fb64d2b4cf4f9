"""One step: what it asks of its parts, and what it reports."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from glm130b.config.sections import RunConfig
from glm130b.data.batch import MicroBatch
from glm130b.data.objectives.row import Row
from glm130b.environment import Launch
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.model.segments import PackedSegments
from glm130b.parallel.pipeline import ForwardStep
from glm130b.parallel.topology import disconnect
from glm130b.parallel.update import NOT_FINITE, GradientNorms, Permit
from glm130b.parallel.zero import StepOutcome
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress
from glm130b.training.schedules import Schedules
from glm130b.training.stability.reading import Reading
from glm130b.training.stepper import Stepper
from tests.harness.pool import run_distributed
from tests.harness.records import without_machine
from tests.harness.synthetic import SyntheticRows, small_config
from tests.harness.training import live_run, loader, meter, watch

PHASES = ("forward and backward of", "update of", "what follows")
KEYS = {
    *("loss", "loss/mask", "loss/gmask", "loss/instruction"),
    *("loss/text.english", "loss/text.chinese", "loss/instructions.english"),
    *("learning_rate", "batch_size"),
    *("gradient_norm", "embedding_gradient_norm"),
    *("shrink_alpha", "loss_scale", "overflows", "skipped_updates", "skipped_steps", "clip_share"),
    *("seconds", "data_wait_seconds", "samples_per_second", "tokens_per_second", "teraflops_per_gpu"),
    *("rank_seconds/min", "rank_seconds/median", "rank_seconds/max", "slowest_rank", "memory_resident_gib"),
}

OF_THE_ENGINE = ("gradient_norm/", "embedding_gradient_norm/", "parameter_norm", "update_ratio", "second_moment/")


class Asked(NamedTuple):
    """What one step asked of the data, the pipeline and the engine."""

    samples: list[int]
    num_micro_batches: int
    micro_size: int
    shrink: ShrinkFactors
    learning_rate: float
    read_weights: bool


class Parts(nn.Module):
    """Rows, pipeline, engine and model at once: every token loss is 2.0, every third update is skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self._samples: list[int] = []

    def __getitem__(self, sample_index: int) -> Row:
        self._samples.append(sample_index)
        return SyntheticRows()[sample_index]

    def forward(self, tokens_BS: Tensor, p: Tensor, s: PackedSegments, t: Tensor, shrink: ShrinkFactors) -> Tensor:
        self._shrink = shrink
        return torch.full(tokens_BS.shape, 2.0)

    def train(  # type: ignore[override]
        self, forward_step: ForwardStep, batches: Iterator[MicroBatch], *, num_micro_batches: int, micro_size: int
    ) -> list[Tensor]:
        self._samples.clear()
        reports = []
        for _ in range(num_micro_batches):
            output, loss = forward_step(batches, self)
            reports.append(loss(output)[1])
        assert next(batches, None) is None
        self._micro = num_micro_batches, micro_size
        return reports

    at_minimum_scale = False

    def step(self, learning_rate: float, *, permit: Permit, read_weights: bool) -> StepOutcome:
        self.asked.append(Asked(list(self._samples), *self._micro, self._shrink, learning_rate, read_weights))
        overflowed = len(self.asked) % 3 == 0
        norms = NOT_FINITE if overflowed else GradientNorms(whole=0.5, embedding=0.25)
        applied = not overflowed and permit(norms)
        return StepOutcome(
            norms.whole,
            norms.embedding,
            applied=applied,
            overflowed=overflowed,
            loss_scale=64.0,
            statistics={"gradient_norm/ffn": 0.25, "gradient_norm/layer.3": 0.125},
        )


def asked_in(launch: Launch, config: RunConfig, count: int) -> tuple[list[Asked], list[tuple[Progress, Record]]]:
    topology = live_run(config, launch).topology
    parts: Any = Parts()
    schedules = Schedules(config)
    rows = loader(parts, schedules, topology)
    stepper = Stepper(
        config,
        loader=rows,
        pipeline=parts,
        engine=parts,
        schedules=schedules,
        watch=watch(config, schedules),
        topology=topology,
        meter=meter(config, rows, topology),
    )
    progress, results = Progress(), []
    for _ in range(count):
        progress, record = stepper.step(progress)
        results.append((progress, record))
    disconnect()
    return parts.asked, results


def ramped_config(**sections: Any) -> RunConfig:
    """Batches of 4, 4, 8, then 12 rows; the learning rate and the shrink change with every step."""
    model = small_config().model.model_dump()
    alpha = {"start": 1.0, "end": 0.1, "from_samples": 0, "over_samples": 90}
    model["embedding_gradient_shrink"] = {"alpha": alpha, "logit_side": False}
    return small_config(
        batch={"global_size": 12, "ramp": {"start": 4, "increment": 4, "over_samples": 16}},
        evaluation={"samples": 12},
        model=model,
        **sections,
    )


def test_the_batch_ramp_changes_the_number_of_micro_batches() -> None:
    config = ramped_config()
    asked, results = run_distributed(asked_in, 1, config, 5)[0]
    assert [len(step.samples) for step in asked] == [4, 4, 8, 12, 12]
    assert [step.num_micro_batches for step in asked] == [2, 2, 4, 6, 6]
    assert {step.micro_size for step in asked} == {2}
    assert [sample for step in asked for sample in step.samples] == list(range(40))
    assert [record.values["batch_size"] for _, record in results] == [4, 4, 8, 12, 12]
    assert [progress.samples for progress, _ in results] == [4, 8, 16, 28, 40]


def test_data_parallel_ranks_share_the_rows_of_a_step() -> None:
    config = ramped_config(parallel={"data": 2})
    (first, first_results), (second, second_results) = run_distributed(asked_in, 2, config, 3)
    assert [step.samples for step in first] == [[0, 1], [4, 5], [8, 9, 12, 13]]
    assert [step.samples for step in second] == [[2, 3], [6, 7], [10, 11, 14, 15]]
    assert [step.num_micro_batches for step in first] == [1, 1, 2]
    for (_, one), (_, two) in zip(first_results, second_results, strict=True):
        assert without_machine(one.values) == without_machine(two.values)


def test_schedules_are_read_where_the_step_begins() -> None:
    config = ramped_config()
    schedules = Schedules(config)
    asked, results = run_distributed(asked_in, 1, config, 4)[0]
    for step, (_, record) in zip(asked, results, strict=True):
        begins = step.samples[0]
        alpha = schedules.embedding_gradient_alpha(begins)
        assert step.learning_rate == record.values["learning_rate"] == schedules.learning_rate(begins)
        assert record.values["shrink_alpha"] == alpha
        assert step.shrink == ShrinkFactors(input_side=alpha, logit_side=1.0)
    assert len({step.learning_rate for step in asked}) == len({step.shrink for step in asked}) == 4


def test_a_skipped_update_is_counted_and_consumes_its_rows() -> None:
    _, results = run_distributed(asked_in, 1, ramped_config(), 4)[0]
    assert [progress.skipped_updates for progress, _ in results] == [0, 0, 1, 1]
    assert [record.values["skipped_updates"] for _, record in results] == [0, 0, 1, 1]
    assert [record.to_dict()["gradient_norm"] for _, record in results] == [0.5, 0.5, None, 0.5]
    for progress, record in results:
        assert (record.kind, record.step, record.samples) == ("train", progress.step, progress.samples)
        assert record.values["loss"] == pytest.approx(2.0)
        assert record.values["loss_scale"] == 64.0


def test_clipped_updates_are_counted_among_those_that_were_made() -> None:
    """Every gradient has the norm 0.5; the third is not finite, and changes nothing."""
    for largest, share in ((0.5, 0.0), (0.4, 1.0)):
        config = ramped_config(optimizer={**small_config().optimizer.model_dump(), "clip_gradient_norm": largest})
        _, results = run_distributed(asked_in, 1, config, 4)[0]
        assert [record.values["clip_share"] for _, record in results] == [share] * 4
        assert [record.values["overflows"] for _, record in results] == [0, 0, 1, 1]


def test_weights_and_layers_are_read_every_so_many_steps() -> None:
    config = ramped_config(logging={"weights_every_steps": 3, "layers_every_steps": 2, "wandb": "disabled"})
    asked, results = run_distributed(asked_in, 1, config, 6)[0]
    assert [step.read_weights for step in asked] == [True, False, True, False, False, True]
    assert ["gradient_norm/layer.3" in record.values for _, record in results] == [True, True, False, True, False, True]
    assert {record.values["gradient_norm/ffn"] for _, record in results} == {0.25}


def real_records(launch: Launch, config: RunConfig, count: int) -> tuple[Progress, list[Record]]:
    run = live_run(config, launch)
    progress, records = Progress(), []
    for _ in range(count):
        progress, record = run.stepper.step(progress)
        records.append(record)
    disconnect()
    return progress, records


def test_a_record_is_complete_and_finite() -> None:
    _, records = run_distributed(real_records, 1, small_config(), 2)[0]
    for record in records:
        assert {name for name in record.values if not name.startswith(OF_THE_ENGINE)} == KEYS
        assert record.labels == {"slowest_host": "host-0"}
        assert all(math.isfinite(value) for value in record.values.values())
        assert record.values["tokens_per_second"] == pytest.approx(8 * 32 / record.values["seconds"])
        assert record.values["loss_scale"] == 1.0
        json.dumps(record.to_dict(), allow_nan=False)


def looked_at(launch: Launch, config: RunConfig) -> tuple[list[Reading], list[Record], list[str]]:
    """What the guard is shown in two steps of which it permits the second only; the phases that were told."""
    run = live_run(config, launch)
    readings: list[Reading] = []
    phases: list[str] = []

    class SecondOnly:
        def permits(self, reading: Reading) -> bool:
            readings.append(reading)
            return len(readings) > 1

    only: Any = SecondOnly()
    rows = loader(SyntheticRows(), Schedules(config), run.topology)
    stepper = Stepper(
        config,
        loader=rows,
        pipeline=run.pipeline,
        engine=run.engine,
        schedules=Schedules(config),
        watch=only,
        topology=run.topology,
        meter=meter(config, rows, run.topology),
        enter_phase=phases.append,
    )
    progress, records = Progress(), []
    for _ in range(2):
        progress, record = stepper.step(progress)
        records.append(record)
    disconnect()
    return readings, records, phases


def test_the_guard_sees_a_step_before_its_update() -> None:
    readings, records, phases = run_distributed(looked_at, 1, small_config())[0]
    assert [(reading.step, reading.samples) for reading in readings] == [(0, 0), (1, 8)]
    for reading, record in zip(readings, records, strict=True):
        assert reading.is_finite
        assert reading.loss == record.values["loss"]
        assert reading.gradient_norm == record.values["gradient_norm"]
        assert 0 < reading.embedding_gradient_norm < reading.gradient_norm
        assert reading.embedding_gradient_norm == record.values["embedding_gradient_norm"]
    assert [record.values["skipped_updates"] for record in records] == [1, 1]
    assert phases == [f"{what} step {n}" for n in (1, 2) for what in PHASES]


def test_an_fp16_overflow_is_a_skipped_update() -> None:
    scale = {"initial_power": 32, "hysteresis": 1}
    config = small_config(precision={"dtype": "fp16", "loss_scale": scale})
    progress, records = run_distributed(real_records, 1, config, 2)[0]
    assert progress == Progress(step=2, samples=16, skipped_updates=2, overflows=2)
    assert [record.values["skipped_updates"] for record in records] == [1, 2]
    assert not any("clip_share" in record.values for record in records)  # nothing was updated
    assert [record.values["loss_scale"] for record in records] == [2.0**31, 2.0**30]
    assert [record.to_dict()["gradient_norm"] for record in records] == [None, None]
    assert all(math.isfinite(record.values["loss"]) for record in records)
