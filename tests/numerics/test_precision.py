"""fp16 and bf16 against fp32, dynamic loss scaling, fp32 accumulation."""

from itertools import pairwise

import pytest
import torch

from glm130b.model.gradient_shrink import ShrinkFactors
from tests.harness.pool import run_distributed
from tests.harness.rounding import loss_bound, norm_bound
from tests.harness.training import first_gradients, train_steps
from tests.numerics.test_against_reference import laid_out, reference_training


@pytest.mark.parametrize("layout", ["TP1 PP1 DP1", "TP2 PP2 DP2"])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_follows_fp32(layout: str, dtype: str) -> None:
    config, world_size = laid_out(layout, precision={"dtype": dtype, "loss_scale": {"initial_power": 8}})
    layers = config.model.num_layers
    numbers = run_distributed(train_steps, world_size, config, 20)[0]
    for ours, reference in zip(numbers, reference_training("adamw"), strict=True):
        assert ours["loss"] == pytest.approx(reference.loss, abs=loss_bound(dtype, layers))
        assert ours["gradient_norm"] == pytest.approx(reference.gradient_norm, rel=norm_bound(dtype, layers))
    assert [step["skipped_updates"] for step in numbers] == [0] * 20


def test_fp16_skips_overflows_on_every_rank_and_recovers() -> None:
    """At a scale of 2**32 every gradient overflows: steps are skipped and the scale halves until they fit, then
    training goes on."""
    config, world_size = laid_out(
        "TP2 PP2", precision={"dtype": "fp16", "loss_scale": {"initial_power": 32, "hysteresis": 1, "window_steps": 4}}
    )
    ranks = run_distributed(train_steps, world_size, config, 30)
    numbers = ranks[0]
    skipped = numbers[-1]["skipped_updates"]
    assert 5 < skipped < 25
    assert numbers[0]["gradient_norm"] == float("inf")
    assert numbers[0]["loss_scale"] == 2.0**31
    assert numbers[0]["loss"] == pytest.approx(reference_training("adamw")[0].loss, abs=loss_bound("fp16", 4))
    assert numbers[-1]["loss"] < numbers[0]["loss"] - 0.1
    assert min(step["loss_scale"] for step in numbers) < 2.0**27
    # The scale doubles again after four good steps.
    scales = [step["loss_scale"] for step in numbers]
    assert any(later == 2 * earlier for earlier, later in pairwise(scales))
    assert all(
        [step["skipped_updates"] for step in rank] == [step["skipped_updates"] for step in numbers] for rank in ranks
    )


def test_gradients_accumulate_in_fp32_or_not() -> None:
    """Thirty-two micro-batches of one row: sums in fp16 lose bits that sums in fp32 keep."""
    batch, power = {"micro_size": 1, "global_size": 32}, 12
    exact, _ = laid_out("TP1 PP1 DP1", batch=batch)
    true = run_distributed(first_gradients, 1, exact, ShrinkFactors())[0]
    errors = {}
    for in_fp32, dtype in ((True, torch.float32), (False, torch.float16)):
        precision = {
            "dtype": "fp16",
            "accumulate_gradients_in_fp32": in_fp32,
            "loss_scale": {"initial_power": power},
        }
        config, _ = laid_out("TP1 PP1 DP1", batch=batch, precision=precision)
        ours = run_distributed(first_gradients, 1, config, ShrinkFactors())[0]
        differences = []
        for name, parts in ours.items():
            for (_, _, values), (_, _, whole) in zip(parts, true[name], strict=True):
                assert values.dtype == dtype
                differences.append((values.double() / 2**power - whole.double()).flatten())
        errors[in_fp32] = float(torch.cat(differences).norm())
    norm = float(torch.cat([values.double().flatten() for parts in true.values() for _, _, values in parts]).norm())
    assert errors[True] < 2e-3 * norm
    assert errors[True] < 0.9 * errors[False]
