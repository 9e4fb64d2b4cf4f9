"""The schedule's reports, and an evaluation that leaves no trace."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.data.batch import MicroBatch
from glm130b.data.batches import micro_batches
from glm130b.data.objectives.row import Row
from glm130b.environment import Launch
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.model.segments import PackedSegments
from glm130b.parallel.pipeline import ForwardStep, Report
from glm130b.parallel.topology import disconnect
from glm130b.training.objective_loss import forward_step
from glm130b.training.progress import Progress
from tests.harness.pool import run_distributed
from tests.harness.synthetic import SyntheticRows, small_config
from tests.harness.training import LiveRun, StepNumbers, live_run

CPU = torch.device("cpu")
LAYOUTS: dict[str, dict[str, Any]] = {
    "one process": {},
    "PP2": {"pipeline": 2},
    "PP2, two virtual stages": {"pipeline": 2, "virtual_stages": 2},
    "ZeRO stage 2": {"zero_stage": 2},
}


def rows_of_a_step(config: RunConfig, first_sample: int = 0) -> Iterator[MicroBatch]:
    batch, rows = config.batch, SyntheticRows()
    return micro_batches(
        rows,  # type: ignore[arg-type]
        first_sample=first_sample,
        batch_size=batch.global_size,
        micro_size=batch.micro_size,
        data_rank=0,
        data_size=1,
    )


def run_micro_batches(run: LiveRun, which: str, step: ForwardStep, first_sample: int = 0) -> list[Report]:
    """One call of ``Pipeline.train`` or ``Pipeline.evaluate``."""
    batch = run.config.batch
    return getattr(run.pipeline, which)(
        step,
        rows_of_a_step(run.config, first_sample),
        num_micro_batches=batch.global_size // batch.micro_size,
        micro_size=batch.micro_size,
    )


def all_reports(launch: Launch, config: RunConfig) -> dict[str, list[Report]]:
    run = live_run(config, launch)
    step = forward_step(CPU, ShrinkFactors())
    reports = {which: run_micro_batches(run, which, step) for which in ("evaluate", "train")}
    if config.parallel.pipeline == 1:  # the same numbers without a schedule
        reports["by hand"] = []
        for batch in rows_of_a_step(config):
            with torch.no_grad():
                token_losses_BS = run.stage(
                    batch.tokens_BS, batch.positions_B2S, PackedSegments(batch.segments), batch.targets_BS
                )
            reports["by hand"].append((token_losses_BS * batch.loss_weights_BS).sum(dim=1))
    disconnect()
    return reports


@pytest.mark.parametrize("micro_size", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_reports_come_from_the_last_stage_and_are_not_divided(layout: str, micro_size: int) -> None:
    """The schedule divides the loss in place by the number of micro-batches; reports must not share its memory."""
    parallel = LAYOUTS[layout]
    config = small_config(parallel=parallel, batch={"micro_size": micro_size})
    ranks = run_distributed(all_reports, parallel.get("pipeline", 1), config)
    *others, last = ranks
    (alone,) = run_distributed(all_reports, 1, small_config(batch={"micro_size": micro_size}))
    assert all(rank == {"evaluate": [], "train": []} for rank in others)
    for which in ("evaluate", "train"):
        assert len(last[which]) == 8 // micro_size
        for report, row_losses_B in zip(last[which], alone["by hand"], strict=True):
            assert report.losses_B.tolist() == pytest.approx(row_losses_B.tolist(), rel=1e-6)
            assert report.losses_B.sum() > 3.0 * micro_size  # ln 96 = 4.6 a row, far from its eighth


def aliased_reports(launch: Launch, config: RunConfig) -> tuple[list[float], list[float]]:
    """Reports of a forward step that hands out the loss itself, and of one that hands out a copy."""

    def reporting(copy: bool) -> ForwardStep:
        def run_one(batches: Iterator[MicroBatch], model: Any) -> tuple[Tensor, Any]:
            output, loss = forward_step(CPU, ShrinkFactors())(batches, model)

            def loss_and_itself(token_losses_BS: Tensor) -> tuple[Tensor, Report]:
                value, _ = loss(token_losses_BS)
                return value, value.detach().clone() if copy else value.detach()

            return output, loss_and_itself

        return run_one

    run = live_run(config, launch)
    aliased, copied = (run_micro_batches(run, "train", reporting(copy)) for copy in (False, True))
    disconnect()
    return [report.item() for report in aliased], [report.item() for report in copied]


def test_a_report_that_shares_the_losss_memory_would_be_divided() -> None:
    """Why the test above is needed."""
    ((aliased, copied),) = run_distributed(aliased_reports, 1, small_config())
    assert aliased == pytest.approx([loss / 4 for loss in copied])


def numbers_with_evaluations(launch: Launch, config: RunConfig, evaluates: bool) -> list[StepNumbers]:
    """Three training steps, with an evaluation before each or without."""
    run = live_run(config, launch)
    progress, numbers = Progress(), []
    for _ in range(3):
        if evaluates:
            before = [p.detach().clone() for p in run.stage.parameters()]
            run_micro_batches(run, "evaluate", forward_step(CPU, ShrinkFactors()), first_sample=1000)
            assert all(torch.equal(p, b) for p, b in zip(run.stage.parameters(), before, strict=True))
            assert run.stage.training
        progress, records = run.take_steps(1, progress)
        numbers += [{name: records[0][name] for name in ("loss", "gradient_norm", "applied")}]
    disconnect()
    return numbers


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        ("one process", "fp32"),
        ("one process", "bf16"),
        ("PP2", "fp16"),
        ("PP2", "bf16"),
        ("PP2, two virtual stages", "fp16"),
        ("ZeRO stage 2", "fp16"),
    ],
)
def test_training_does_not_notice_an_evaluation(layout: str, dtype: str) -> None:
    parallel = LAYOUTS[layout]
    config = small_config(
        parallel=parallel,
        precision={"dtype": dtype, "loss_scale": {"initial_power": 8}},
        model={"hidden_dropout": 0.1, "attention_dropout": 0.1},
    )
    world_size = parallel.get("pipeline", 1)
    undisturbed = run_distributed(numbers_with_evaluations, world_size, config, False)
    assert run_distributed(numbers_with_evaluations, world_size, config, True) == undisturbed
    assert undisturbed[0][0]["loss"] != undisturbed[0][2]["loss"]


def gradients_around_an_evaluation(launch: Launch, config: RunConfig) -> bool:
    """Whether the gradients that wait for the optimizer are the same after an evaluation."""
    run = live_run(config, launch)
    step = forward_step(CPU, ShrinkFactors())
    run_micro_batches(run, "train", step)
    before = [run.engine.gradient_of(parameter).clone() for parameter in run.stage.parameters()]
    assert any(gradient.any() for gradient in before)
    run_micro_batches(run, "evaluate", step, first_sample=1000)
    after = [run.engine.gradient_of(parameter) for parameter in run.stage.parameters()]
    disconnect()
    return all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("layout", ["one process", "PP2", "PP2, two virtual stages"])
def test_gradients_that_wait_for_the_optimizer_survive_an_evaluation(layout: str) -> None:
    parallel = LAYOUTS[layout]
    assert all(
        run_distributed(gradients_around_an_evaluation, parallel.get("pipeline", 1), small_config(parallel=parallel))
    )


class BrokenRows(SyntheticRows):
    def __getitem__(self, sample_index: int) -> Row:
        raise OSError("the corpus is gone")


def mode_after_a_failed_evaluation(launch: Launch, config: RunConfig) -> bool:
    run = live_run(config, launch)
    rows = micro_batches(BrokenRows(), first_sample=0, batch_size=8, micro_size=2, data_rank=0, data_size=1)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="the corpus is gone"):
        run.pipeline.evaluate(forward_step(CPU, ShrinkFactors()), rows, num_micro_batches=4, micro_size=2)
    disconnect()
    return run.stage.training


def test_dropout_is_back_on_after_a_failed_evaluation() -> None:
    assert run_distributed(mode_after_a_failed_evaluation, 1, small_config()) == [True]
