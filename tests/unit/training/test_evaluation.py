"""When the held-out rows are evaluated, on which rows, and that the layout does not show."""

from typing import Any

import pytest

from glm130b.config.sections import RunConfig
from glm130b.data.objectives.row import Row
from glm130b.environment import Launch
from glm130b.parallel.topology import disconnect
from glm130b.training.evaluation import Evaluation
from glm130b.training.loop import train
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress
from glm130b.training.sinks.recorder import Recorder
from tests.harness.pool import run_distributed
from tests.harness.synthetic import SyntheticRows, small_config
from tests.harness.training import live_run


class Rows(SyntheticRows):
    """Writes down which rows were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __getitem__(self, sample_index: int) -> Row:
        self.asked.append(sample_index)
        return super().__getitem__(sample_index)


class Kept:
    """A sink that keeps records."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self) -> None: ...


def evaluations(launch: Launch, config: RunConfig, start: Progress) -> tuple[list[Record], list[int]]:
    """The validation records of a run from ``start`` to its end, and the rows this rank asked for."""
    run = live_run(config, launch)
    kept = Kept()
    rows: Any = Rows()
    evaluation = Evaluation(config, rows=rows, pipeline=run.pipeline, topology=run.topology, recorder=Recorder([kept]))
    train(run.stepper, start, train_samples=config.train_samples, hooks=[evaluation])
    assert run.stage.training
    disconnect()
    return kept.records, rows.asked


def config_of(steps: int, **sections: Any) -> RunConfig:
    return small_config(train_samples=8 * steps, evaluation={"every_steps": 2, "samples": 8}, **sections)


@pytest.mark.parametrize(
    ("start", "steps", "evaluated"),
    [
        (0, 3, [0, 2, 3]),
        (0, 4, [0, 2, 4]),
        (1, 3, [2, 3]),
        (2, 3, [3]),
        (3, 3, []),
    ],
)
def test_before_a_fresh_run_every_n_steps_and_once_at_the_end(start: int, steps: int, evaluated: list[int]) -> None:
    records, asked = run_distributed(evaluations, 1, config_of(steps), Progress(start, 8 * start))[0]
    assert [record.step for record in records] == evaluated
    assert [record.samples for record in records] == [8 * step for step in evaluated]
    assert {record.kind for record in records} <= {"validation"}
    assert asked == list(range(8)) * len(evaluated)  # always the same rows


def test_a_loss_for_every_objective_and_source() -> None:
    records, _ = run_distributed(evaluations, 1, config_of(2), Progress())[0]
    for record in records:
        values = record.values
        objectives, sources = ("mask", "gmask", "instruction"), ("text.english", "text.chinese", "instructions.english")
        assert set(values) == {"loss", *(f"loss/{part}" for part in (*objectives, *sources))}
        # Of four rows two are [gMASK], one is [MASK] and one an instruction.
        mean = (2 * values["loss/gmask"] + values["loss/mask"] + values["loss/instruction"]) / 4
        assert values["loss"] == pytest.approx(mean)
        # One of the [gMASK] rows is Chinese.
        texts = (2 * values["loss/gmask"] + values["loss/mask"] - values["loss/text.chinese"]) / 2
        assert values["loss/text.english"] == pytest.approx(texts)
        assert values["loss/instructions.english"] == values["loss/instruction"]


def test_dropout_is_off() -> None:
    without, _ = run_distributed(evaluations, 1, config_of(1), Progress())[0]
    sizes = small_config().model.model_dump() | {"hidden_dropout": 0.5, "attention_dropout": 0.5}
    with_dropout, _ = run_distributed(evaluations, 1, config_of(1, model=sizes), Progress())[0]
    assert with_dropout[0].values == without[0].values
    assert with_dropout[1].values != without[1].values


def test_every_layout_and_rank_measures_the_same() -> None:
    alone = run_distributed(evaluations, 1, config_of(3), Progress())[0][0]
    grid = config_of(3, parallel={"tensor": 2, "pipeline": 2, "data": 2})
    ranks = run_distributed(evaluations, 8, grid, Progress())
    for records, _ in ranks:
        assert records == ranks[0][0]
        for record, expected in zip(records, alone, strict=True):
            assert record.step == expected.step
            assert record.values == pytest.approx(expected.values, abs=1e-5)
    assert {tuple(asked[:4]) for _, asked in ranks} == {(0, 1, 4, 5), (2, 3, 6, 7)}
