"""Which kernels a plan assumes."""

from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.config.hardware import ACCELERATORS
from glm130b.config.load import load_config
from glm130b.plan.kernels import gpu_kernels

RUN = Path(__file__).parents[1] / "run.yaml"


@pytest.mark.parametrize(
    ("hardware", "overrides", "attention"),
    [
        ("h100", ["precision.dtype=bf16"], "varlen"),
        ("h100", ["precision.dtype=fp32"], "sdpa"),
        ("h100", ["precision.dtype=bf16", "model.attention_dropout=0.1"], "sdpa"),
        ("h100", ["precision.dtype=bf16", "model.positions=alibi"], "sdpa"),
        ("h100", ["precision.dtype=fp16", "kernels.attention=flash_attn"], "flash_attn"),
        ("v100-32g", ["precision.dtype=fp16"], "sdpa"),
    ],
)
def test_auto_is_what_the_model_and_the_gpu_allow(hardware: str, overrides: list[str], attention: str) -> None:
    kernels = gpu_kernels(load_config(RUN, overrides), ACCELERATORS[hardware])
    assert kernels.attention == attention
    assert kernels.fused_pointwise


def test_what_a_gpu_cannot_do_is_told_at_once() -> None:
    config = load_config(RUN, ["precision.dtype=bf16", "kernels.attention=varlen", "kernels.pointwise=plain"])
    assert not gpu_kernels(config, ACCELERATORS["h100"]).fused_pointwise
    with pytest.raises(UserError) as error:
        gpu_kernels(config, ACCELERATORS["v100-32g"])
    assert len(error.value.problems) == 2
