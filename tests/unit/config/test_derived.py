"""Arithmetic on a config against sums written out another way."""

from math import prod
from pathlib import Path

import pytest

from glm130b.config import derived
from glm130b.config.load import load_config
from glm130b.config.model import ModelConfig
from glm130b.config.sections import RunConfig

CONFIGS = Path(__file__).parents[3] / "configs"
RUN = Path(__file__).parents[1] / "run.yaml"
PRESETS = sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("families/*.yaml")])


@pytest.fixture(scope="module")
def glm_130b() -> RunConfig:
    return load_config(CONFIGS / "glm-130b.yaml")


def shapes(model: ModelConfig, tensor: int = 1) -> dict[str, tuple[int, ...]]:
    """Shapes of the first layer's parameters and of those outside layers, as one of ``tensor`` ranks holds them."""
    hidden, ffn, vocab = model.hidden_size, model.ffn_hidden_size // tensor, model.vocab_size // tensor
    head = model.head_dim or hidden // model.num_attention_heads
    queries = head * model.num_attention_heads
    keys = head * (model.num_key_value_heads or model.num_attention_heads)
    gated = {"geglu": 2, "swiglu": 2, "gelu": 1}[model.ffn]
    norms = {
        "deepnorm": ["input", "pre_mlp"],
        "pre": ["input", "pre_mlp"],
        "post": ["post_attention", "post_mlp"],
        "sandwich": ["input", "post_attention", "pre_mlp", "post_mlp"],
    }[model.norm_placement]
    found: dict[str, tuple[int, ...]] = {
        "layer.qkv.weight": ((queries + 2 * keys) // tensor, hidden),
        "layer.qkv.bias": ((queries + 2 * keys) // tensor,),
        "layer.proj.weight": (hidden, queries // tensor),
        "layer.proj.bias": (hidden,),
        "layer.fc1.weight": (gated * ffn, hidden),
        "layer.fc1.bias": (gated * ffn,),
        "layer.fc2.weight": (hidden, ffn),
        "layer.fc2.bias": (hidden,),
        "first.word.weight": (vocab, hidden),
    }
    found |= {f"layer.{name}.norm.{kind}": (hidden,) for name in norms for kind in ("weight", "bias")}
    found |= {f"last.norm.{kind}": (hidden,) for kind in ("weight", "bias") if model.norm_placement != "post"}
    found |= {f"first.norm.{kind}": (hidden,) for kind in ("weight", "bias") if model.embedding_norm}
    if not model.tie_embedding:
        found["last.output.weight"] = (vocab, hidden)
    tables = {"learned": ["position"], "learned_2d": ["position", "block_position"]}.get(model.positions, [])
    found |= {f"first.{table}.weight": (model.max_positions or 0, hidden) for table in tables}
    if model.parallel_block:
        found = {name: shape for name, shape in found.items() if "pre_mlp" not in name}
    if model.normalization == "rmsnorm":
        found = {name: shape for name, shape in found.items() if not name.endswith("norm.bias")}
    return {name: shape for name, shape in found.items() if model.biases or not name.endswith("bias")}


def count(parameters: dict[str, tuple[int, ...]], place: str) -> int:
    return sum(prod(shape) for name, shape in parameters.items() if name.startswith(f"{place}."))


SWITCHES = [
    ["model.norm_placement=pre"],
    ["model.norm_placement=post", "model.embedding_norm=true"],
    ["model.norm_placement=sandwich"],
    ["model.norm_placement=pre", "model.parallel_block=true", "model.tie_embedding=false"],
    ["model.norm_placement=sandwich", "model.normalization=rmsnorm", "model.ffn=gelu"],
    ["model.norm_placement=post", "model.biases=false", "model.embedding_norm=true"],
    ["model.normalization=rmsnorm", "model.biases=false", "model.ffn=swiglu", "model.embedding_norm=true"],
    ["model.num_key_value_heads=1", "model.head_dim=24"],
    ["model.num_key_value_heads=2", "model.tie_embedding=false"],
    ["model.positions=learned", "model.max_positions=300"],
    ["model.positions=learned_2d", "model.max_positions=257", "model.embedding_norm=true"],
    ["parallel.virtual_stages=2", "batch.ramp=null", "parallel.tensor=4", "model.num_key_value_heads=1"],
    ["parallel.pipeline=1", "model.tie_embedding=false"],
]


def both(config: RunConfig) -> list[tuple[int, ...]]:
    """Parameters of each stage from the shapes and from the formulas, whole and on one tensor rank."""
    layers, tied = derived.layers_per_stage(config), config.model.tie_embedding and config.parallel.pipeline > 1
    found = []
    for tensor in (1, config.parallel.tensor):
        parameters = shapes(config.model, tensor)
        stages = [number * count(parameters, "layer") for number in layers]
        stages[0] += count(parameters, "first")
        stages[-1] += count(parameters, "last") + tied * prod(parameters["first.word.weight"])
        found += [tuple(stages), derived.parameters_per_stage(config, tensor)]
    return found


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_the_parameters_of_a_preset_are_the_sum_of_its_shapes(preset: Path) -> None:
    config = load_config(preset)
    parameters = shapes(config.model)
    outside = count(parameters, "first") + count(parameters, "last")
    assert derived.num_parameters(config.model) == config.model.num_layers * count(parameters, "layer") + outside
    whole, formula, held, formula_held = both(config)
    assert (formula, formula_held) == (whole, held)


@pytest.mark.parametrize("overrides", SWITCHES, ids=" ".join)
def test_every_switch_counts_its_parameters(overrides: list[str]) -> None:
    config = load_config(RUN, overrides)
    whole, formula, held, formula_held = both(config)
    assert (formula, formula_held) == (whole, held)


def test_glm_130b_has_its_size(glm_130b: RunConfig) -> None:
    assert derived.num_parameters(glm_130b.model) == 128_697_794_560
    assert derived.checkpoint_bytes(glm_130b) == 12 * 128_697_794_560


def test_stages_hold_the_model_and_one_more_embedding(glm_130b: RunConfig) -> None:
    stages = derived.parameters_per_stage(glm_130b)
    assert sum(stages) == derived.num_parameters(glm_130b.model) + 150528 * 12288
    assert max(stages) / min(stages) < 1.01


def test_glm_130b_deals_its_layers_evenly(glm_130b: RunConfig) -> None:
    assert derived.layers_per_stage(glm_130b) == (8, 9, 9, 9, 9, 9, 9, 8)
    starts = [chunk.start for (chunk,) in derived.layers_per_chunk(glm_130b)]
    assert starts == [0, 8, 17, 26, 35, 44, 53, 62]


@pytest.mark.parametrize(
    ("layers", "stages", "virtual", "uneven"),
    [
        (4, 2, 1, False),
        (4, 1, 1, False),
        (5, 1, 1, True),
        (6, 2, 1, True),
        (6, 4, 1, True),
        (70, 8, 1, True),
        (70, 4, 1, True),
        (48, 8, 1, False),
        (8, 2, 2, False),
        (48, 4, 3, False),
        (6, 2, 2, True),
        (70, 8, 3, True),
        (72, 4, 2, False),
    ],
)
def test_layers_are_dealt_as_megatron_does(layers: int, stages: int, virtual: int, uneven: bool) -> None:
    from megatron.core.transformer.transformer_block import get_num_layers_to_build
    from megatron.core.transformer.transformer_config import TransformerConfig
    from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

    overrides = [f"model.num_layers={layers}", f"parallel.pipeline={stages}", f"parallel.virtual_stages={virtual}"]
    uneven_too = f"parallel.embedding_and_head_count_as_layers={str(uneven).lower()}"
    batch = ["batch.ramp=null", "batch.global_size=96", "evaluation.samples=96", "parallel.data=1"]
    config = load_config(RUN, [*overrides, uneven_too, *batch])
    megatron = TransformerConfig(
        num_layers=layers,
        hidden_size=64,
        num_attention_heads=4,
        pipeline_model_parallel_size=stages,
        virtual_pipeline_model_parallel_size=virtual if virtual > 1 else None,
        pipeline_dtype=None if stages == 1 else "fp32",
        account_for_embedding_in_pipeline_split=uneven and stages > 1,
        account_for_loss_in_pipeline_split=uneven and stages > 1,
    )
    for stage, chunks in enumerate(derived.layers_per_chunk(config)):
        assert len(chunks) == virtual
        for chunk, dealt in enumerate(chunks):
            chunk_index = chunk if virtual > 1 else None
            first = get_transformer_layer_offset(megatron, chunk_index, stage)
            assert dealt == range(first, first + get_num_layers_to_build(megatron, chunk_index, stage))
    assert sum(derived.layers_per_stage(config)) == layers


def test_more_chunks_shrink_the_bubble() -> None:
    config = load_config(RUN, ["parallel.pipeline=4", "batch.ramp=null"])
    assert derived.bubble_share(config, 4) == 3 / 7
    config = load_config(
        RUN, ["parallel.pipeline=4", "batch.ramp=null", "parallel.virtual_stages=2", "model.num_layers=8"]
    )
    assert derived.bubble_share(config, 4) == 3 / 11
    assert derived.bubble_share(load_config(RUN, ["parallel.pipeline=1"]), 4) == 0


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


@pytest.mark.parametrize(
    ("world_size", "overrides", "data_size"),
    [
        (1, [], 1),
        (2, [], 2),
        (3, [], 2),
        (4, [], 4),
        (9, [], 4),  # 8 rows are four micro-batches of 2
        (9, ["batch.micro_size=1"], 8),
        (9, ["batch.micro_size=1", "evaluation.samples=12"], 4),
        (9, ["batch.micro_size=1", "batch.ramp={start: 2, increment: 2, over_samples: 8}"], 2),
        (9, ["parallel.tensor=2"], 4),
        (9, ["parallel.pipeline=2", "parallel.virtual_stages=2"], 2),
        (9, ["parallel.pipeline=4"], 2),
    ],
)
def test_the_largest_data_parallel_size_shares_out_every_batch(
    world_size: int, overrides: list[str], data_size: int
) -> None:
    base = ["batch={global_size: 8, micro_size: 2, ramp: null}", "evaluation.samples=32", "model.num_layers=8"]
    grid = ["parallel.tensor=1", "parallel.pipeline=1", "parallel.data=largest"]
    config = load_config(CONFIGS / "tiny.yaml", [*base, *grid, *overrides], world_size=world_size)
    assert derived.data_parallel_size(config, world_size) == data_size
    assert derived.grid_size(config, world_size) == data_size * derived.replica_size(config)
    assert derived.least_world_size(config) == derived.replica_size(config)
