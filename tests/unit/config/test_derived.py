"""Arithmetic on a config against sums written out another way."""

from math import prod
from pathlib import Path

import pytest

from glm130b.config import derived
from glm130b.config.load import load_config
from glm130b.config.sections import ModelConfig, RunConfig

CONFIGS = Path(__file__).parents[3] / "configs"
RUN = Path(__file__).parents[1] / "run.yaml"
PRESETS = sorted(CONFIGS.glob("*.yaml"))


@pytest.fixture(scope="module")
def glm_130b() -> RunConfig:
    return load_config(CONFIGS / "glm-130b.yaml")


def shapes(model: ModelConfig, tensor: int = 1) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Shapes of one layer's parameters and of the others, as one of ``tensor`` ranks holds them."""
    hidden, ffn, vocab = model.hidden_size, model.ffn_hidden_size, model.vocab_size
    qkv = 3 * hidden // tensor
    layer: list[tuple[int, ...]] = [
        *[(hidden,)] * 4,  # two LayerNorms
        (qkv, hidden),
        (qkv,),
        (hidden, hidden // tensor),
        (hidden,),
        (2 * ffn // tensor, hidden),
        (2 * ffn // tensor,),
        (hidden, ffn // tensor),
        (hidden,),
    ]
    return layer, [(vocab // tensor, hidden), (hidden,), (hidden,)]


def count(many: list[tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in many)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_parameters_are_the_sum_of_the_shapes(preset: Path) -> None:
    config = load_config(preset)
    model, tensor = config.model, config.parallel.tensor
    layer, other = shapes(model)
    assert derived.num_parameters(model) == model.num_layers * count(layer) + count(other)
    layer, other = shapes(model, tensor)
    stages = [layers * count(layer) for layers in derived.layers_per_stage(config)]
    stages[0] += prod(other[0])
    stages[-1] += count(other[1:]) + (prod(other[0]) if len(stages) > 1 else 0)
    assert derived.parameters_per_stage(config, tensor) == tuple(stages)


def test_glm_130b_has_its_size(glm_130b: RunConfig) -> None:
    assert derived.num_parameters(glm_130b.model) == 128_697_794_560
    assert derived.checkpoint_bytes(glm_130b) == 12 * 128_697_794_560


def test_stages_hold_the_model_and_one_more_embedding(glm_130b: RunConfig) -> None:
    stages = derived.parameters_per_stage(glm_130b)
    assert sum(stages) == derived.num_parameters(glm_130b.model) + 150528 * 12288
    assert max(stages) / min(stages) < 1.01


def test_glm_130b_deals_its_layers_evenly(glm_130b: RunConfig) -> None:
    assert derived.layers_per_stage(glm_130b) == (8, 9, 9, 9, 9, 9, 9, 8)
    assert derived.stage_offsets(glm_130b) == (0, 8, 17, 26, 35, 44, 53, 62)


@pytest.mark.parametrize(
    ("layers", "stages", "uneven"),
    [
        (4, 2, False),
        (4, 1, False),
        (5, 1, True),
        (6, 2, True),
        (6, 4, True),
        (70, 8, True),
        (70, 4, True),
        (48, 8, False),
    ],
)
def test_layers_are_dealt_as_megatron_does(layers: int, stages: int, uneven: bool) -> None:
    from megatron.core.transformer.transformer_block import get_num_layers_to_build
    from megatron.core.transformer.transformer_config import TransformerConfig

    config = load_config(
        RUN,
        [
            f"model.num_layers={layers}",
            f"parallel.pipeline={stages}",
            f"parallel.embedding_and_head_count_as_layers={str(uneven).lower()}",
        ],
    )
    megatron = TransformerConfig(
        num_layers=layers,
        hidden_size=64,
        num_attention_heads=4,
        pipeline_model_parallel_size=stages,
        pipeline_dtype=None if stages == 1 else "fp32",
        account_for_embedding_in_pipeline_split=uneven,
        account_for_loss_in_pipeline_split=uneven,
    )
    dealt = tuple(get_num_layers_to_build(megatron, pp_rank=rank) for rank in range(stages))
    assert derived.layers_per_stage(config) == dealt
    assert sum(dealt) == layers


def test_the_grid_and_the_step_of_glm_130b(glm_130b: RunConfig) -> None:
    assert derived.data_parallel_size(glm_130b, 768) == 24
    assert derived.num_micro_batches(glm_130b, batch_size=4224, data_size=24) == 176
    assert derived.tokens_per_step(glm_130b, 4224) == 8_650_752
    open_data = load_config(CONFIGS / "glm-10b.yaml")
    assert derived.data_parallel_size(open_data, 64) == 16


def test_model_flops_match_the_published_formula(glm_130b: RunConfig) -> None:
    s, layers, h, vocab = 2048, 70, 12288, 150528
    assert 3 * glm_130b.model.ffn_hidden_size == 8 * h
    formula = 72 * s * layers * h**2 * (1 + s / (6 * h) + vocab / (12 * layers * h))
    assert derived.model_flops_per_sample(glm_130b) == pytest.approx(formula, rel=1e-12)


def test_plain_sgd_keeps_no_moments() -> None:
    config = load_config(RUN, ["optimizer.name=sgd"])
    assert derived.checkpoint_bytes(config) == 4 * derived.num_parameters(config.model)
