"""DeepSpeed's configuration, with every key that matters written out.

Megatron's schedule runs forward and backward; each ``step`` is one whole accumulation
(``managed_gradient_accumulation: false``).
"""

from typing import Any

import torch

from glm130b.config.sections import ParallelConfig, PrecisionConfig, RunConfig


def deepspeed_config(config: RunConfig) -> dict[str, Any]:
    """The dict that ``deepspeed.initialize`` takes."""
    return {
        "train_micro_batch_size_per_gpu": config.batch.micro_size,
        # Megatron's schedule has already divided by the number of micro-batches.
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.optimizer.clip_gradient_norm,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": config.parallel.zero_stage,
            "reduce_bucket_size": config.parallel.reduce_bucket_elements,
            "allgather_bucket_size": config.parallel.reduce_bucket_elements,
            "overlap_comm": False,
            **_offload(config.parallel),
        },
        # With the optimizer offloaded it would insist on an Adam of its own, compiled at the start of the run.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        # Under stage 2 its stopwatch would wait for the GPU in every micro-batch.
        "timers": {"throughput": {"enabled": False}},
        **_precision(config.precision),
    }


def _offload(parallel: ParallelConfig) -> dict[str, Any]:
    if not parallel.offload_optimizer:
        return {}
    return {"offload_optimizer": {"device": "cpu", "pin_memory": torch.cuda.is_available()}}


def _precision(precision: PrecisionConfig) -> dict[str, Any]:
    if precision.dtype == "fp32":
        return {}
    accumulation = "fp32" if precision.accumulate_gradients_in_fp32 else precision.dtype
    common = {"data_types": {"grad_accum_dtype": accumulation}, "communication_data_type": accumulation}
    if precision.dtype == "bf16":
        # Without the immediate update DeepSpeed's bf16 optimizer never sees gradients that its own backward did not
        # make.
        return common | {"bf16": {"enabled": True, "immediate_grad_update": True}}
    scale = precision.loss_scale
    return common | {
        "fp16": {
            "enabled": True,
            "initial_scale_power": scale.initial_power,
            "loss_scale_window": scale.window_steps,
            "hysteresis": scale.hysteresis,
            "min_loss_scale": scale.minimum,
        }
    }
