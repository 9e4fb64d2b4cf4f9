"""DeepSpeed's configuration: every key that matters, from the run's config."""

import pytest
import torch

from glm130b.parallel.deepspeed_config import deepspeed_config
from tests.harness.synthetic import small_config


def test_keys_that_do_not_depend_on_the_precision() -> None:
    ours = deepspeed_config(small_config(parallel={"zero_stage": 2, "reduce_bucket_elements": 123}))
    assert ours["gradient_accumulation_steps"] == 1
    assert ours["managed_gradient_accumulation"] is False
    assert ours["gradient_clipping"] == 0.5
    assert ours["train_micro_batch_size_per_gpu"] == 2
    zero = ours["zero_optimization"]
    assert (zero["stage"], zero["reduce_bucket_size"], zero["allgather_bucket_size"]) == (2, 123, 123)
    assert not {"fp16", "bf16", "data_types"} & ours.keys()


@pytest.mark.parametrize(("in_fp32", "sums"), [(True, "fp32"), (False, "fp16")])
def test_keys_of_fp16(in_fp32: bool, sums: str) -> None:
    scale = {"initial_power": 12, "window_steps": 7, "hysteresis": 3, "minimum": 2.0}
    precision = {"dtype": "fp16", "accumulate_gradients_in_fp32": in_fp32, "loss_scale": scale}
    ours = deepspeed_config(small_config(precision=precision))
    assert ours["fp16"] == {
        "enabled": True,
        "initial_scale_power": 12,
        "loss_scale_window": 7,
        "hysteresis": 3,
        "min_loss_scale": 2.0,
    }
    assert ours["data_types"] == {"grad_accum_dtype": sums}
    assert ours["communication_data_type"] == sums
    assert "bf16" not in ours


@pytest.mark.parametrize(("in_fp32", "sums"), [(True, "fp32"), (False, "bf16")])
def test_keys_of_bf16(in_fp32: bool, sums: str) -> None:
    ours = deepspeed_config(small_config(precision={"dtype": "bf16", "accumulate_gradients_in_fp32": in_fp32}))
    assert ours["bf16"] == {"enabled": True, "immediate_grad_update": True}
    assert ours["data_types"] == {"grad_accum_dtype": sums}
    assert ours["communication_data_type"] == sums
    assert "fp16" not in ours


def test_the_optimizer_is_offloaded_on_demand() -> None:
    """With PyTorch's AdamW: DeepSpeed's own would be compiled at the start of the run."""
    ours = deepspeed_config(small_config(parallel={"offload_optimizer": True}))
    assert ours["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    assert ours["zero_force_ds_cpu_optimizer"] is False
    assert "offload_optimizer" not in deepspeed_config(small_config())["zero_optimization"]
