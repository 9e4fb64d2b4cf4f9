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


def test_glm_130b_reaches_its_tokens_at_its_step() -> None:
    """The released weights are those of step 49,300, about 400 billion tokens into the run."""
    config = load_config(CONFIGS / "glm-130b.yaml")
    assert Schedules(config).samples_at(49_300) * config.data.sequence_length == pytest.approx(400e9, rel=0.005)
    assert config.train_samples == int(450e9 / 2048)


def test_h100_trains_the_same_model_on_the_same_schedule() -> None:
    original, today = (load_config(CONFIGS / f"glm-130b{suffix}.yaml") for suffix in ("", "-h100"))
    assert num_parameters(today.model) == num_parameters(original.model)
    for section in ("data", "objective", "batch", "optimizer", "evaluation", "train_samples"):
        assert getattr(today, section) == getattr(original, section)
    assert (today.precision.dtype, today.model.hidden_dropout, today.model.attention_dropout) == ("bf16", 0.0, 0.0)
