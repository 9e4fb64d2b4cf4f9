"""Our config in Megatron-core's words: each trap it would fall into, silently, has a test here."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.launcher import Launch
from glm130b.model.transformer_config import TransformerConfig, transformer_config
from tests.harness.pool import run_distributed
from tests.harness.stage import scatter_parameters_, stage
from tests.harness.synthetic import small_config


def translated(**sections: dict[str, object]) -> TransformerConfig:
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


def test_recomputation_keeps_each_layers_input() -> None:
    full, none = translated(parallel={"recompute": "full"}), translated()
    assert (full.recompute_granularity, full.recompute_method, full.recompute_num_layers) == ("full", "uniform", 1)
    assert none.recompute_granularity is None


def test_megatron_marks_weights_but_does_not_draw_them() -> None:
    """Without its initialisation the tensor-parallel marks would be missing, and ours alone shall draw."""
    ours = translated()
    assert ours.perform_initialization
    weight = torch.arange(6.0).view(2, 3)
    for leave in (ours.init_method, ours.output_layer_init_method):
        leave(weight)
        assert torch.equal(weight, torch.arange(6.0).view(2, 3))


def ffn_output(launch: Launch, config: RunConfig) -> dict[str, Tensor]:
    """What Megatron-core's FFN makes of large activations, and what each way of reading it would have made."""
    with stage(launch, config) as model, torch.no_grad():
        scatter_parameters_(model)
        ffn = model.decoder.layers[0].mlp
        x_SBH = torch.randn(64, 1, config.model.hidden_size, generator=torch.Generator().manual_seed(7))
        output, bias = ffn(x_SBH)
        first, second = F.linear(x_SBH.double(), ffn.linear_fc1.weight.double(), ffn.linear_fc1.bias.double()).chunk(
            2, dim=-1
        )
        exact = first * 0.5 * (1 + torch.erf(first / 2**0.5))

        def project(hidden: Tensor) -> Tensor:
            return F.linear(hidden, ffn.linear_fc2.weight.double(), ffn.linear_fc2.bias.double()).float()

        return {
            "ours": output + bias,
            "exact": project(exact * second),
            "tanh": project(F.gelu(first, approximate="tanh") * second),
            "halves swapped": project(first * F.gelu(second)),
        }


def test_the_ffn_is_gated_by_the_exact_gelu_of_its_first_half() -> None:
    (out,) = run_distributed(ffn_output, 1, small_config())
    scale = out["exact"].abs().max()
    assert (out["ours"] - out["exact"]).abs().max() < 1e-6 * scale
    # The test can tell exact from approximate, and one half from the other.
    assert (out["tanh"] - out["exact"]).abs().max() > 2e-5 * scale
    assert (out["halves swapped"] - out["exact"]).abs().max() > 0.1 * scale
