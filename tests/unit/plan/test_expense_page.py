"""Memory, time and cost as the page shows them."""

from pathlib import Path

import pytest

from glm130b.config.load import load_config
from glm130b.plan.cluster import read_hardware
from glm130b.plan.page import page

CONFIGS = Path(__file__).parents[3] / "configs"
PRESETS = sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("families/*.yaml")])


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_fits_80_columns(preset: Path) -> None:
    lines = page(load_config(preset), cluster=read_hardware("h200")).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)


def test_glm_130b() -> None:
    text = page(load_config(CONFIGS / "glm-130b.yaml"), cluster=read_hardware("a100-40g", price=1.5))
    for expected in (
        "Memory of one GPU in GiB: a100-40g has 40.00",
        "it fits: stage 0 is the fullest with",
        "Time of a full step on 768 GPUs",
        "bubble 3.8% of the pipeline",
        "The run: 55,014 steps, 450 Gtokens, $1.5 a GPU hour",
        "65% of the peak, as above",
        "a checkpoint every 69.6 min: a failure loses half of that on average",
        "attention by sdpa, which keeps no scores; pointwise fused",
    ):
        assert expected in text
    assert "a real step is slower" not in text


@pytest.mark.parametrize(
    ("preset", "hardware", "gpus"),
    [
        ("glm-110m", "a100-40g", 8),
        ("glm-335m", "a100-40g", 8),
        ("glm-2b", "a100-40g", 8),
        ("glm-10b", "a100-40g", 32),
        ("glm-130b", "a100-40g", 768),
        ("glm-130b-h100", "h100", 384),
        ("families/glm-10b", "a100-40g", 32),
        ("families/chatglm-6b", "a100-40g", 32),
        ("families/gpt2-xl", "a100-40g", 8),
        ("families/llama-7b", "a100-80g", 32),
        ("families/palm-540b", "h100", 1536),
    ],
)
def test_a_failure_loses_an_hour_at_most(preset: str, hardware: str, gpus: int) -> None:
    config = load_config(CONFIGS / f"{preset}.yaml")
    text = page(config, world_size=gpus, cluster=read_hardware(hardware))
    interval, unit = text.split("a checkpoint every ")[1].split(":")[0].split()
    assert (unit, float(interval) <= 120) == ("min", True)


def test_what_does_not_fit_is_said_loudly() -> None:
    config = load_config(CONFIGS / "glm-130b.yaml", ["parallel.recompute=none"])
    assert "IT DOES NOT FIT: stage 0 needs" in page(config, cluster=read_hardware("a100-40g"))


def test_what_fits_with_little_to_spare_is_tight() -> None:
    config = load_config(CONFIGS / "glm-130b.yaml")
    assert "it fits, but tight: stage 0" in page(config, cluster=read_hardware("a100-40g,memory=26"))


def test_without_a_price_there_are_no_dollars() -> None:
    custom = read_hardware("custom,memory=64,peak=383,memory_bandwidth=1600,node=50,network=25")
    text = page(load_config(CONFIGS / "glm-130b.yaml"), cluster=custom)
    assert "450 Gtokens, --price for dollars\n" in text
    assert "GPU hours\n" in text
    assert "$" not in text


def test_an_offloaded_optimizer_is_told_by_machine() -> None:
    config = load_config(CONFIGS / "glm-130b.yaml", ["parallel.offload_optimizer=true"])
    assert "GiB are in the memory of each machine" in page(config, cluster=read_hardware("a100-40g"))


def test_a_tiny_model_waits_for_launches() -> None:
    assert "a real step is slower" in page(load_config(CONFIGS / "tiny.yaml"), cluster=read_hardware("a100-40g"))


def test_without_hardware_none_of_it_is_there() -> None:
    text = page(load_config(CONFIGS / "glm-130b.yaml"))
    assert not any(word in text for word in ("Memory", "Time of", "The run", "Assumed"))
