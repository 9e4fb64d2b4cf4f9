"""Our config in Megatron-core's words: each trap it would fall into, silently, has a test here."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.transformer_config import transformer_config
from tests.harness.pool import run_distributed
from tests.harness.stage import initial_chunk, scatter_parameters_
from tests.harness.synthetic import small_config


def translated(**sections: dict[str, Any]) -> TransformerConfig:
    config = small_config(**sections)
    return transformer_config(config.model, config.parallel, config.precision)


def test_no_fusion_changes_the_arithmetic() -> None:
    ours = translated()
    assert not ours.bias_activation_fusion  # would take the tanh approximation of GeLU
    assert not ours.bias_dropout_fusion
    assert not ours.masked_softmax_fusion
    assert not ours.gradient_accumulation_fusion


def test_sizes_and_switches_arrive() -> None:
    sizes = {"attention_dropout": 0.1, "hidden_dropout": 0.2, "layernorm_epsilon": 1e-4}
    ours = translated(model=sizes, parallel={"tensor": 2, "pipeline": 2})
    assert (ours.num_layers, ours.hidden_size, ours.num_attention_heads, ours.ffn_hidden_size) == (4, 32, 4, 48)
    assert (ours.attention_dropout, ours.hidden_dropout, ours.layernorm_epsilon) == (0.1, 0.2, 1e-4)
    assert (ours.tensor_model_parallel_size, ours.pipeline_model_parallel_size) == (2, 2)
    assert ours.gated_linear_unit
    assert ours.add_bias_linear
    assert ours.activation_func is F.gelu
    assert not ours.sequence_parallel
    assert ours.kv_channels == 8
    assert ours.num_query_groups == 4


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_number_formats(dtype: str, torch_dtype: torch.dtype) -> None:
    ours = translated(precision={"dtype": dtype})
    assert ours.params_dtype == ours.pipeline_dtype == torch_dtype
    assert (ours.fp16, ours.bf16) == (dtype == "fp16", dtype == "bf16")


@pytest.mark.parametrize(("pipeline", "wanted", "uneven"), [(1, True, False), (2, True, True), (2, False, False)])
def test_uneven_stages_only_where_there_are_stages(pipeline: int, wanted: bool, uneven: bool) -> None:
    ours = translated(parallel={"pipeline": pipeline, "embedding_and_head_count_as_layers": wanted})
    assert ours.account_for_embedding_in_pipeline_split is uneven
    assert ours.account_for_loss_in_pipeline_split is uneven


def test_recomputation() -> None:
    """Full keeps each layer's input; selective names attention's inside, the only part whose recomputation
    Megatron-core does not drop, silently, for a layer with a forward pass of its own."""
    full, selective, none = (translated(parallel={"recompute": kind}) for kind in ("full", "selective", "none"))
    assert (full.recompute_granularity, full.recompute_method, full.recompute_num_layers) == ("full", "uniform", 1)
    assert (selective.recompute_granularity, selective.recompute_modules) == ("selective", ["core_attn"])
    assert none.recompute_granularity is None


@pytest.mark.parametrize(("virtual_stages", "chunks", "batched"), [(1, None, True), (2, 2, False)])
def test_interleaved_stages_send_one_tensor_at_a_time(virtual_stages: int, chunks: int | None, batched: bool) -> None:
    """Batched, gloo pairs two tensors between the same two stages in the order of posting: garbage, silently.
    Overlapped, the buffer would be freed while it is still being sent."""
    ours = translated(parallel={"pipeline": 2, "virtual_stages": virtual_stages})
    assert ours.virtual_pipeline_model_parallel_size == chunks
    assert ours.batch_p2p_comm is batched
    assert not ours.overlap_p2p_comm
    assert ours.deallocate_pipeline_outputs


@pytest.mark.parametrize(("tensor", "cut"), [(1, False), (2, True)])
def test_the_sequence_is_cut_where_there_is_a_tensor_axis(tensor: int, cut: bool) -> None:
    assert translated(parallel={"tensor": tensor, "sequence_parallel": True}).sequence_parallel is cut


@pytest.mark.parametrize(
    ("ffn", "activation", "gated"), [("geglu", F.gelu, True), ("swiglu", F.silu, True), ("gelu", F.gelu, False)]
)
def test_switches_of_the_family_arrive(ffn: str, activation: object, gated: bool) -> None:
    ours = translated(model={"ffn": ffn, "biases": False, "num_key_value_heads": 2, "head_dim": 12})
    assert ours.activation_func is activation
    assert ours.gated_linear_unit is gated
    assert not ours.add_bias_linear
    assert (ours.num_query_groups, ours.kv_channels) == (2, 12)


def test_bias_dropout_and_residual_are_fused_on_demand() -> None:
    config = small_config()
    fused = transformer_config(config.model, config.parallel, config.precision, fused_pointwise=True)
    assert fused.bias_dropout_fusion
    assert not fused.bias_activation_fusion


def test_megatron_marks_weights_but_does_not_draw_them() -> None:
    """Without its initialisation the tensor-parallel marks would be missing, and ours alone shall draw."""
    ours = translated()
    assert ours.perform_initialization
    weight = torch.arange(6.0).view(2, 3)
    for leave in (ours.init_method, ours.output_layer_init_method):
        leave(weight)
        assert torch.equal(weight, torch.arange(6.0).view(2, 3))


def ffn_outputs(launch: Launch, config: RunConfig) -> dict[str, Tensor]:
    """What Megatron-core's FFN makes of large activations, and what each way of reading it would have made."""
    with initial_chunk(launch, config) as model, torch.no_grad():
        scatter_parameters_(model)
        ffn = model.decoder.layers[0].mlp
        x_SBH = torch.randn(64, 1, config.model.hidden_size, generator=torch.Generator().manual_seed(7))
        output, bias = ffn(x_SBH)
        inner = F.linear(x_SBH.double(), ffn.linear_fc1.weight.double(), ffn.linear_fc1.bias.double())
        if config.model.ffn == "gelu":
            readings = {"exact": erf_gelu(inner), "tanh": F.gelu(inner, approximate="tanh")}
        else:
            first, second = inner.chunk(2, dim=-1)
            readings = {
                "exact": erf_gelu(first) * second,
                "tanh": F.gelu(first, approximate="tanh") * second,
                "halves swapped": first * erf_gelu(second),
            }
        weight, added = ffn.linear_fc2.weight.double(), ffn.linear_fc2.bias.double()
        return {"ours": output + bias, **{name: F.linear(x, weight, added).float() for name, x in readings.items()}}


def erf_gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


@pytest.mark.parametrize("ffn", ["geglu", "gelu"])
def test_the_gelu_is_exact_and_gates_by_the_first_half(ffn: str) -> None:
    (out,) = run_distributed(ffn_outputs, 1, small_config(model={"ffn": ffn}))
    ours, exact = out.pop("ours"), out.pop("exact")
    scale = exact.abs().max()
    assert (ours - exact).abs().max() < 1e-6 * scale
    # The test can tell exact from approximate, and one half from the other.
    for other in out.values():
        assert (other - exact).abs().max() > 2e-5 * scale
