"""Embedding gradient shrink in whole steps: losses that do not notice, gradients times alpha exactly, on both sides of
the tied weight in every layout; and what the paper saw."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.model.stage import Stage
from glm130b.parallel.topology import disconnect
from glm130b.parallel.update import Permit
from glm130b.parallel.zero import StepOutcome
from tests.harness.pool import run_distributed
from tests.harness.synthetic import small_config
from tests.harness.training import live_run

OFF = {"start": 1.0, "end": 1.0}


def tied_gradients(launch: Launch, config: RunConfig, shrinks: list[ShrinkFactors]) -> list[list[Tensor]]:
    """Under each shrink the gradients of this rank's copies of the tied embedding, after the sum over its stages."""
    run = live_run(config, launch)
    found = []
    for shrink in shrinks:
        run.accumulate_gradients(shrink)
        found.append([run.engine.gradient_of(weight).clone() for weight in tied_weights(run.stage)])
        run.engine.step(0.0)  # clears the gradients, moves nothing
    disconnect()
    return found


def tied_weights(stage: Stage) -> list[nn.Parameter]:
    return [chunk.tied_weight for chunk in stage if chunk.tied_weight is not None]


@pytest.mark.parametrize(
    "parallel",
    [{"tensor": 2}, {"pipeline": 2, "virtual_stages": 2}, {"tensor": 2, "pipeline": 2, "sequence_parallel": True}],
    ids=str,
)
def test_both_sides_of_the_tied_weight_are_scaled_exactly(parallel: dict[str, Any]) -> None:
    """By powers of two, so that nothing is rounded."""
    sides = [(1.0, 0.0), (0.25, 0.0), (0.0, 1.0), (0.0, 0.5), (1.0, 1.0), (0.25, 0.5)]
    world_size = parallel.get("tensor", 1) * parallel.get("pipeline", 1)
    shrinks = [ShrinkFactors(*pair) for pair in sides]
    for rank in run_distributed(tied_gradients, world_size, small_config(parallel=parallel), shrinks):
        assert {len(copies) for copies in rank} == {1}
        input_side, input_shrunk, logit_side, logit_shrunk, both, shrunk = (copy for (copy,) in rank)
        assert input_side.any()
        assert logit_side.any()
        assert torch.equal(input_shrunk, 0.25 * input_side)
        assert torch.equal(logit_shrunk, 0.5 * logit_side)
        torch.testing.assert_close(both, input_side + logit_side, atol=1e-7, rtol=1e-5)
        torch.testing.assert_close(shrunk, 0.25 * input_side + 0.5 * logit_side, atol=1e-7, rtol=1e-5)


class Observed(NamedTuple):
    """One step; the norms are those of the gradients before clipping."""

    loss: float
    global_norm: float
    """As recorded."""
    embedding_norm: float
    other_norm: float
    """Of all parameters but the embedding."""


def observed_steps(launch: Launch, config: RunConfig, count: int, learns: bool) -> list[Observed]:
    """Real steps in one process; unless it learns, all at the initial weights."""
    run = live_run(config, launch)
    (embedding,) = tied_weights(run.stage)
    update, norms = run.engine.step, []

    def step(learning_rate: float, *, permit: Permit, read_weights: bool) -> StepOutcome:
        squares = {p: run.engine.gradient_of(p).double().square().sum() for p in run.stage.parameters()}
        own = squares.pop(embedding)
        norms.append((own.sqrt().item(), torch.stack(list(squares.values())).sum().sqrt().item()))
        return update(learning_rate if learns else 0.0, permit=permit, read_weights=read_weights)

    run.engine.step = step  # type: ignore[method-assign]
    _, numbers = run.take_steps(count)
    disconnect()
    return [Observed(n["loss"], n["gradient_norm"], *both) for n, both in zip(numbers, norms, strict=True)]


def observe(count: int, alpha: dict[str, float], *, learns: bool = True, **sides: bool) -> list[Observed]:
    config = small_config(model={"embedding_gradient_shrink": {"alpha": alpha, **sides}})
    observed: list[Observed] = run_distributed(observed_steps, 1, config, count, learns)[0]
    return observed


def test_a_step_follows_the_schedule_in_samples() -> None:
    """Eight samples a step: alpha is 1 until sample 8, then falls over 32 samples to 1/4. Nothing but the embedding's
    gradient notices."""
    alpha = {"start": 1.0, "end": 0.25, "from_samples": 8, "over_samples": 32}
    plain, shrunk = (observe(7, each, learns=False) for each in (OFF, alpha))
    ratios = [with_it.embedding_norm / without.embedding_norm for without, with_it in zip(plain, shrunk, strict=True)]
    assert ratios == pytest.approx([1.0, 1.0, 0.8125, 0.625, 0.4375, 0.25, 0.25], rel=1e-6)
    for without, with_it in zip(plain, shrunk, strict=True):
        assert (with_it.loss, with_it.other_norm) == (without.loss, without.other_norm)
        norm = (with_it.other_norm**2 + with_it.embedding_norm**2) ** 0.5
        assert with_it.global_norm == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize(("side", "left"), [("input_side", (0.0, 1.0)), ("logit_side", (1.0, 0.0))])
def test_each_side_is_shrunk_by_its_own_switch(side: str, left: tuple[float, float]) -> None:
    """Shrunk to nothing, one side leaves the other's gradient."""
    sides = {"input_side": False, "logit_side": False, side: True}
    (step,) = observe(1, {"start": 0.0, "end": 0.0}, learns=False, **sides)
    ((((gradient,),)),) = run_distributed(tied_gradients, 1, small_config(), [ShrinkFactors(*left)])
    assert step.embedding_norm == pytest.approx(gradient.norm().item(), rel=1e-6)
    (whole,) = observe(1, OFF, learns=False)
    assert step.embedding_norm != pytest.approx(whole.embedding_norm, rel=0.1)


def test_the_papers_observation() -> None:
    """GLM-130B paper, section 3.2: the embedding's gradient is the largest by far, and spikes; shrunk, it no longer is.

    Thirty steps of DeepNorm and AdamW, with and without. Both runs begin at the same weights, where the shrunk norm is
    alpha times the other exactly; from there on weights part a little, since clipping sees another norm.
    """
    alpha = 0.125
    plain, shrunk = (observe(30, each) for each in (OFF, {"start": alpha, "end": alpha}))
    assert shrunk[0].embedding_norm == alpha * plain[0].embedding_norm
    assert (shrunk[0].loss, shrunk[0].other_norm) == (plain[0].loss, plain[0].other_norm)
    for without, with_it in zip(plain, shrunk, strict=True):
        assert with_it.embedding_norm == pytest.approx(alpha * without.embedding_norm, rel=0.1)
        assert without.embedding_norm > without.other_norm
        assert with_it.embedding_norm < 0.5 * with_it.other_norm
    # So the shrunk run is clipped less often, and both learn.
    limit = small_config().optimizer.clip_gradient_norm
    assert all(step.global_norm > limit for step in plain)
    assert sum(step.global_norm > limit for step in shrunk) < 15
    assert max(shrunk[-1].loss, plain[-1].loss) < 0.5 * plain[0].loss
