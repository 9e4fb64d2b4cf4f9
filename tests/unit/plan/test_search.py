"""The search: legal, complete, fitting, fastest first."""

from pathlib import Path

import pytest

from glm130b.config.load import load_config, read_config
from glm130b.config.rules import problems
from glm130b.plan.cluster import read_hardware
from glm130b.plan.search import Found, search

CONFIGS = Path(__file__).parents[3] / "configs"
RUN = Path(__file__).parents[1] / "run.yaml"


@pytest.fixture(scope="module")
def published() -> Found:
    return search(load_config(CONFIGS / "glm-130b.yaml"), read_hardware("a100-40g"), world_size=768)


def test_the_published_grid_is_among_the_best_three(published: Found) -> None:
    assert (4, 8, 24) in [candidate.grid for candidate in published.best[:3]]
    assert published.as_it_is is not None
    assert published.as_it_is.grid == (4, 8, 24)


def test_without_the_ramp_it_is_within_two_per_cent_of_the_best() -> None:
    """The ramp's increment outlaws most rivals; without it some are faster."""
    config = load_config(CONFIGS / "glm-130b.yaml", ["batch.ramp=null"])
    best = search(config, read_hardware("a100-40g"), world_size=768).best
    (own,) = (candidate.seconds for candidate in best if candidate.grid == (4, 8, 24))
    assert best[0].grid != (4, 8, 24)
    assert own < 1.02 * best[0].seconds


def test_the_best_are_in_order_and_fit(published: Found) -> None:
    order = [(candidate.is_tight, candidate.seconds) for candidate in published.best]
    assert order == sorted(order)
    assert all(candidate.memory_bytes <= 40 * 2**30 for candidate in published.best)
    assert len({candidate.grid for candidate in published.best}) == len(published.best)


def test_every_layout_is_counted_once(published: Found) -> None:
    fallen = sum(published.broken_rules.values())
    assert published.num_tried == published.num_fitting + published.num_too_large + fallen
    assert min(published.num_fitting, published.num_too_large, fallen) > 0


def test_the_overrides_make_the_layout_and_break_no_rule(published: Found) -> None:
    original = load_config(CONFIGS / "glm-130b.yaml")
    for candidate in published.best:
        pasted = load_config(CONFIGS / "glm-130b.yaml", candidate.overrides(original), world_size=768)
        assert pasted == candidate.config
        assert not problems(pasted, world_size=768)


def test_layers_are_dealt_out_both_ways() -> None:
    """640 GPUs take 70 layers in stages of 7 or 14, and no stages with room for embedding and head."""
    overrides, hardware = ["parallel.data=null"], read_hardware("a100-40g")
    config = load_config(CONFIGS / "glm-130b.yaml", overrides)
    (found,) = (each for each in search(config, hardware, world_size=640).best if each.grid == (8, 10, 8))
    changes = found.overrides(config)
    assert "parallel.embedding_and_head_count_as_layers=false" in changes
    assert load_config(CONFIGS / "glm-130b.yaml", [*overrides, *changes], world_size=640) == found.config


@pytest.mark.parametrize("counted", [False, True])
def test_where_both_come_to_the_same_the_configs_own_stays(counted: bool) -> None:
    """4 layers in 2 stages are 2 and 2 either way."""
    config = load_config(RUN, [f"parallel.embedding_and_head_count_as_layers={str(counted).lower()}"])
    (found,) = (each for each in search(config, read_hardware("h100"), world_size=8).best if each.grid == (2, 2, 2))
    assert found.config.parallel.embedding_and_head_count_as_layers == counted


def test_a_config_whose_own_layout_breaks_a_rule_is_not_compared() -> None:
    fitting, unfit = (read_config(RUN, [f"parallel.tensor={size}", "parallel.data=null"]) for size in (2, 8))
    as_it_was, found = (search(config, read_hardware("h100"), world_size=8) for config in (fitting, unfit))
    assert as_it_was.as_it_is
    assert not found.as_it_is
    assert found.best == as_it_was.best


def test_smaller_memory_leaves_fewer_layouts() -> None:
    config = load_config(RUN)
    roomy = search(config, read_hardware("a100-40g"), world_size=8)
    least = min(candidate.memory_bytes for candidate in roomy.best)
    tight = search(config, read_hardware(f"a100-40g,memory={least / 2**30}"), world_size=8)
    none = search(config, read_hardware("a100-40g,memory=1"), world_size=8)
    assert roomy.num_fitting > tight.num_fitting > none.num_fitting == 0
    assert roomy.num_tried == tight.num_tried == none.num_tried
    assert not none.best


def test_a_tight_layout_stands_behind_roomy_ones(published: Found) -> None:
    fastest = published.best[0]
    memory = fastest.memory_bytes / 2**30 / 0.97
    best = search(
        load_config(CONFIGS / "glm-130b.yaml"), read_hardware(f"a100-40g,memory={memory}"), world_size=768
    ).best
    assert not best[0].is_tight
    assert best[0].seconds > fastest.seconds


def test_a_config_for_other_gpus_is_not_compared() -> None:
    assert search(load_config(RUN), read_hardware("h100"), world_size=4).as_it_is is None
