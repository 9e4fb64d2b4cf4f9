"""Compiled bias + dropout + residual, gate and cross-entropy change a run by rounding only."""

import shutil
from typing import Any

import pytest

from glm130b.config.sections import KernelsConfig
from tests.harness.pool import run_distributed
from tests.harness.synthetic import small_config
from tests.harness.training import StepNumbers, train_steps

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


def steps(kernels: KernelsConfig, **sections: Any) -> list[StepNumbers]:
    config = small_config(**sections).model_copy(update={"kernels": kernels})
    (numbers,) = run_distributed(train_steps, 1, config, 5, timeout=300)
    return numbers


PLAIN, FUSED = KernelsConfig(pointwise="plain"), KernelsConfig(pointwise="fused")


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("bf16", 2**-8)])
def test_fused_steps_are_the_plain_ones(dtype: str, tolerance: float) -> None:
    """In fp32 as close as layouts are to each other; bf16 rounds to 2 ** -8, in other places. Only it has the fused
    cross-entropy."""
    precision = {"dtype": dtype}
    for fused, plain in zip(steps(FUSED, precision=precision), steps(PLAIN, precision=precision), strict=True):
        for quantity in ("loss", "gradient_norm"):
            assert fused[quantity] == pytest.approx(plain[quantity], rel=tolerance)


def test_fused_dropout_is_the_same_under_recomputation() -> None:
    """Were the masks of the second forward pass others, the gradients would be too."""
    once, twice = (
        steps(FUSED, model={"hidden_dropout": 0.2}, parallel={"recompute": recompute}) for recompute in ("none", "full")
    )
    for a, b in zip(once, twice, strict=True):
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-5)
    assert once[0]["loss"] != pytest.approx(steps(FUSED)[0]["loss"], rel=1e-3)
