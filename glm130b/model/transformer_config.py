"""Our config in Megatron-core's words."""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from glm130b.config.model import ModelConfig
from glm130b.config.sections import ParallelConfig, PrecisionConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


_ACTIVATIONS = {"geglu": F.gelu, "swiglu": F.silu, "gelu": F.gelu}


def transformer_config(
    model: ModelConfig, parallel: ParallelConfig, precision: PrecisionConfig, *, fused_pointwise: bool = False
) -> TransformerConfig:
    """What Megatron-core's layers and schedules are to know of a run; its other defaults have been checked to fit."""
    dtype = DTYPES[precision.dtype]
    return TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.key_value_heads,
        kv_channels=model.head_size,
        ffn_hidden_size=model.ffn_hidden_size,
        layernorm_epsilon=model.layernorm_epsilon,
        attention_dropout=model.attention_dropout,
        hidden_dropout=model.hidden_dropout,
        add_bias_linear=model.biases,
        gated_linear_unit=model.ffn != "gelu",
        activation_func=_ACTIVATIONS[model.ffn],
        pipeline_dtype=dtype,
        params_dtype=dtype,
        fp16=precision.dtype == "fp16",
        bf16=precision.dtype == "bf16",
        **_layout(parallel),
        **_recompute(parallel),
        # Weights are drawn by initialization.py. Megatron's own initialisation still has to run, because it is what
        # marks a weight as tensor-parallel; without the marks DeepSpeed's gradient norm is wrong, silently.
        perform_initialization=True,
        init_method=_leave_as_is,
        output_layer_init_method=_leave_as_is,
        # Megatron's fused bias + GELU uses the tanh approximation, up to 2e-3 away from the exact GELU.
        bias_activation_fusion=False,
        bias_dropout_fusion=fused_pointwise,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        gradient_accumulation_fusion=False,
    )


def _layout(parallel: ParallelConfig) -> dict[str, Any]:
    uneven = parallel.embedding_and_head_count_as_layers and parallel.pipeline > 1
    is_interleaved = parallel.virtual_stages > 1
    return {
        "tensor_model_parallel_size": parallel.tensor,
        "pipeline_model_parallel_size": parallel.pipeline,
        "virtual_pipeline_model_parallel_size": parallel.virtual_stages if is_interleaved else None,
        "account_for_embedding_in_pipeline_split": uneven,
        "account_for_loss_in_pipeline_split": uneven,
        # With one tensor rank there is nothing to cut the sequence over.
        "sequence_parallel": parallel.sequence_parallel and parallel.tensor > 1,
        # Two stages with several chunks send each other two tensors at a time. Batched, gloo pairs them in the order of
        # posting, which is garbage, silently; so each is sent on its own, and its buffer freed when it has gone.
        "batch_p2p_comm": not is_interleaved,
        "overlap_p2p_comm": False,
        "batch_p2p_sync": False,
        "deallocate_pipeline_outputs": True,
    }


def _recompute(parallel: ParallelConfig) -> dict[str, Any]:
    if parallel.recompute == "none":
        return {}
    if parallel.recompute == "selective":
        return {"recompute_granularity": "selective", "recompute_modules": ["core_attn"]}
    return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}


def _leave_as_is(weight: torch.Tensor) -> torch.Tensor:
    return weight
