"""The search as a page."""

from pathlib import Path

from glm130b.config.load import load_config
from glm130b.plan.cluster import read_hardware
from glm130b.plan.search import search
from glm130b.plan.search_page import search_page

RUN = Path(__file__).parents[1] / "run.yaml"


def text_of(hardware: str) -> str:
    config, cluster = load_config(RUN), read_hardware(hardware)
    return search_page(config, cluster, search(config, cluster, world_size=8), world_size=8)


def test_the_best_with_what_to_paste() -> None:
    text = text_of("a100-40g")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)
    assert "Search over 8 GPUs, a100-40g: " in text
    assert "break the rule of parallel.zero_stage" in text
    first = next(index for index, line in enumerate(lines) if line.startswith("   1 "))
    assert "parallel.tensor=" in lines[first + 1]
    assert "The config as it is, for comparison\n       2   2     2" in text


def test_columns_stay_apart() -> None:
    """A step of a fraction of a millisecond, and one of hours."""
    for hardware, unit in (("h100", " ms "), ("h100,peak=1e-4,peak_fp32=1e-4", " s ")):
        row = next(line for line in text_of(hardware).splitlines() if line.startswith("   1 "))
        assert unit in row
        assert len(row.split()) == 13


def test_a_tight_layout_has_a_star() -> None:
    text = text_of("a100-40g,memory=2.02")
    assert "%*\n" in text
    assert "* tight: above 95% of the memory" in text


def test_when_nothing_fits() -> None:
    assert text_of("a100-40g,memory=1").endswith(
        "No layout fits: take more or larger GPUs, shorter rows, or parallel.offload_optimizer=true"
    )
