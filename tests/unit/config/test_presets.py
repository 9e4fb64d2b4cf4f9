"""The presets are what their comments say."""

from pathlib import Path

import pytest

from glm130b.config.derived import num_parameters
from glm130b.config.load import load_config
from glm130b.training.schedules import Schedules

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize(
    ("name", "layers", "hidden", "heads"),
    [
        ("glm-110m", 12, 768, 12),
        ("glm-335m", 24, 1024, 16),
        ("glm-2b", 36, 2048, 32),
        ("glm-10b", 48, 4096, 64),
        ("glm-130b", 70, 12288, 96),
        ("glm-130b-h100", 70, 12288, 96),
    ],
)
def test_sizes_of_the_papers(name: str, layers: int, hidden: int, heads: int) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")
    model = config.model
    assert config.name == name
    assert (model.num_layers, model.hidden_size, model.num_attention_heads) == (layers, hidden, heads)
    assert model.vocab_size == 150528
    assert 0 <= model.ffn_hidden_size - model.hidden_size * 8 / 3 < 128
    for nodes in (1, 4) if config.parallel.data is None else ():
        load_config(CONFIGS / f"{name}.yaml", world_size=8 * nodes)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("glm-10b", 9_880_682_496),
        ("chatglm-6b", 6_173_286_400),
        ("gpt2-xl", 1_557_611_200),
        ("bloom-176b", 176_247_271_424),
        ("llama-7b", 6_738_415_616),
    ],
)
def test_a_family_has_its_published_parameters(name: str, published: int) -> None:
    path = CONFIGS / "families" / f"{name}.yaml"
    assert num_parameters(load_config(path).model) == published
    assert f"{published:,} parameters" in path.read_text(encoding="utf-8")


def test_palm_has_its_published_parameters() -> None:
    """Published to five digits: 540.35 B."""
    path = CONFIGS / "families" / "palm-540b.yaml"
    parameters = num_parameters(load_config(path).model)
    assert parameters == pytest.approx(540.35e9, rel=2e-5)
    assert f"{parameters:,}" in path.read_text(encoding="utf-8")


def test_every_family_is_tested() -> None:
    names = {path.stem for path in (CONFIGS / "families").glob("*.yaml")}
    assert names == {"glm-10b", "chatglm-6b", "gpt2-xl", "bloom-176b", "palm-540b", "llama-7b"}


@pytest.mark.parametrize("name", ["gpt2-xl", "bloom-176b", "palm-540b", "llama-7b"])
def test_a_causal_family_predicts_whole_rows(name: str) -> None:
    config = load_config(CONFIGS / "families" / f"{name}.yaml")
    assert config.model.attention == "causal"
    assert config.objective.instruction_share.bounds == config.objective.mask_share.bounds == (0, 0)
    assert config.objective.gmask.target_minimum_share == 1
    assert config.model.embedding_gradient_shrink.alpha.bounds == (1, 1)


@pytest.mark.parametrize("name", ["chatglm-6b", "glm-10b"])
def test_a_family_needs_no_corpus_that_it_does_not_read(name: str) -> None:
    config = load_config(CONFIGS / "families" / f"{name}.yaml")
    assert config.objective.instruction_share.bounds == (0, 0)
    assert config.data.instructions == {}
    assert all(source.weight.bounds[1] > 0 for source in config.data.text.values())


def test_glm_10b_blanks_words_and_sentences_as_the_original() -> None:
    objective = load_config(CONFIGS / "families" / "glm-10b.yaml").objective
    assert (objective.mask_share.bounds, objective.smask_share.bounds) == ((0.4, 0.4), (0.3, 0.3))


def test_no_two_presets_share_a_folder_of_runs() -> None:
    names = [load_config(path).name for path in [*CONFIGS.glob("*.yaml"), *CONFIGS.glob("families/*.yaml")]]
    assert len(set(names)) == len(names)


def test_glm_130b_reaches_its_tokens_at_its_step() -> None:
    """The released weights are those of step 49,300, about 400 billion tokens into the run."""
    config = load_config(CONFIGS / "glm-130b.yaml")
    assert Schedules(config).samples_at(49_300) * config.data.sequence_length == pytest.approx(400e9, rel=0.005)
    assert config.train_samples == int(450e9 / 2048)


def test_h100_trains_the_same_model_on_the_same_schedule() -> None:
    original, today = (load_config(CONFIGS / f"glm-130b{suffix}.yaml") for suffix in ("", "-h100"))
    assert num_parameters(today.model) == num_parameters(original.model)
    for section in ("data", "objective", "optimizer", "evaluation", "train_samples"):
        assert getattr(today, section) == getattr(original, section)
    assert (today.batch.global_size, today.batch.ramp) == (original.batch.global_size, original.batch.ramp)
    assert (today.parallel.recompute, today.parallel.sequence_parallel) == ("selective", True)
    assert (today.precision.dtype, today.model.hidden_dropout, today.model.attention_dropout) == ("bf16", 0.0, 0.0)
