"""Our config in Megatron-core's words."""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from glm130b.config.sections import ModelConfig, ParallelConfig, PrecisionConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def transformer_config(model: ModelConfig, parallel: ParallelConfig, precision: PrecisionConfig) -> TransformerConfig:
    """What Megatron-core's layers and schedules are to know of a run; its other defaults have been checked to fit."""
    dtype = DTYPES[precision.dtype]
    uneven = parallel.embedding_and_head_count_as_layers and parallel.pipeline > 1
    return TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        ffn_hidden_size=model.ffn_hidden_size,
        layernorm_epsilon=model.layernorm_epsilon,
        attention_dropout=model.attention_dropout,
        hidden_dropout=model.hidden_dropout,
        normalization="LayerNorm",
        add_bias_linear=True,
        gated_linear_unit=True,
        activation_func=F.gelu,
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        pipeline_dtype=dtype,
        account_for_embedding_in_pipeline_split=uneven,
        account_for_loss_in_pipeline_split=uneven,
        params_dtype=dtype,
        fp16=precision.dtype == "fp16",
        bf16=precision.dtype == "bf16",
        **_recompute(parallel),
        # Weights are drawn by initialization.py. Megatron's own initialisation still has to run, because it is what
        # marks a weight as tensor-parallel; without the marks DeepSpeed's gradient norm is wrong, silently.
        perform_initialization=True,
        init_method=_leave_as_is,
        output_layer_init_method=_leave_as_is,
        # The fused bias + GeLU uses the tanh approximation, up to 2e-3 away from GLM's exact GeLU.
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        gradient_accumulation_fusion=False,
        batch_p2p_sync=False,
        deallocate_pipeline_outputs=True,
    )


def _recompute(parallel: ParallelConfig) -> dict[str, Any]:
    if parallel.recompute == "none":
        return {}
    return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}


def _leave_as_is(weight: torch.Tensor) -> torch.Tensor:
    return weight
