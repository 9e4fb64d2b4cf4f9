"""Every objective and source has had its due share at every moment, and no row is drawn twice or left out."""

from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.config.sections import RunConfig
from glm130b.data.mixture import Draw, Mixture
from glm130b.data.shares import Kind, shares_at
from tests.unit.data.test_shares import constant, mixture_config


def largest_distances(config: RunConfig, samples: int) -> dict[Kind | str, float]:
    """The most that the count of a kind, and of an objective, is ever off the sum of its shares."""
    mixture = Mixture(config)
    off: dict[Kind | str, float] = defaultdict(float)
    surplus: dict[Kind | str, float] = defaultdict(float)
    for sample in range(samples):
        draw = mixture.locate(sample)
        surplus[Kind(draw.objective, draw.source)] += 1
        surplus[draw.objective] += 1
        for kind, share in shares_at(config, sample).items():
            surplus[kind] -= share
            surplus[kind.objective] -= share
        for key, value in surplus.items():
            off[key] = max(off[key], abs(value))
    return off


def test_glm_130b_keeps_every_share_within_one_sample() -> None:
    """5 % instructions; 30 % [MASK] and 70 % [gMASK] of the rest; two languages."""
    config = mixture_config(constant(0.05), constant(0.3), [constant(0.5), constant(0.5)], [constant(1.0)])
    off = largest_distances(config, 20_000)
    assert off["instruction"] <= 0.5 + 1e-6
    assert max(off.values()) < 1


def test_uneven_sources_keep_their_shares_within_a_little_more() -> None:
    weights = [constant(weight) for weight in (0.5, 0.35, 0.1, 0.05)]
    off = largest_distances(mixture_config(constant(0.05), constant(0.3), weights, weights[:2]), 20_000)
    assert off["instruction"] <= 0.5 + 1e-6
    assert max(off["mask"], off["gmask"]) < 1
    assert max(off.values()) < 1.25


shares = st.floats(0, 1)
weights = st.lists(st.floats(0.01, 10), min_size=1, max_size=6)


def ramps(values: st.SearchStrategy[float]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"start": values, "end": values, "from_samples": st.integers(0, 300), "over_samples": st.integers(0, 600)}
    )


@settings(deadline=None, derandomize=True, max_examples=25)
@given(shares, shares, weights, weights)
def test_the_bounds_hold_for_any_constant_mixture(
    instruction: float, mask: float, text: list[float], instructions: list[float]
) -> None:
    sources = [constant(weight) for weight in text], [constant(weight) for weight in instructions]
    off = largest_distances(mixture_config(constant(instruction), constant(mask), *sources), 800)
    assert off["instruction"] <= 0.5 + 1e-6
    assert max(off["mask"], off["gmask"]) <= 1 + 1e-6
    assert max(off.values()) < 2


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    ramps(shares),
    ramps(shares),
    st.lists(ramps(st.floats(0.01, 10)), min_size=1, max_size=4),
    st.lists(ramps(st.floats(0.01, 10)), min_size=1, max_size=2),
)
def test_the_bounds_hold_while_everything_ramps(
    instruction: dict[str, Any], mask: dict[str, Any], text: list[dict[str, Any]], instructions: list[dict[str, Any]]
) -> None:
    off = largest_distances(mixture_config(instruction, mask, text, instructions), 1100)
    stairs = 1 / 4  # a ramp is a staircase; the sums of two kinds may be off by it
    assert off["instruction"] <= 0.5 + stairs
    assert max(off["mask"], off["gmask"]) <= 1 + stairs
    assert max(off.values()) < 2 + stairs


def test_ordinals_count_the_draws_of_a_source() -> None:
    ramp = {"start": 0.0, "end": 0.5, "from_samples": 100, "over_samples": 500}
    mixture = Mixture(
        mixture_config(ramp, constant(0.3), [constant(0.6), constant(0.4)], [constant(2.0), constant(1.0)])
    )
    seen: Counter[tuple[bool, str]] = Counter()
    for sample in range(2000):
        draw = mixture.locate(sample)
        source = draw.objective == "instruction", draw.source
        assert draw.ordinal == seen[source]
        seen[source] += 1


def test_a_text_and_an_instruction_set_of_one_name_are_two_sources() -> None:
    config = mixture_config(constant(0.5), constant(0.5), [constant(1.0)], [constant(1.0)])
    both = {"same": config.data.text["t0"]}
    data = config.data.model_copy(update={"text": both, "instructions": both})
    mixture = Mixture(config.model_copy(update={"data": data}))
    draws = [mixture.locate(sample) for sample in range(100)]
    for is_instruction in (True, False):
        ordinals = [draw.ordinal for draw in draws if (draw.objective == "instruction") == is_instruction]
        assert ordinals == list(range(50))


@pytest.mark.parametrize("share", [1e-9, 1 / 3, 0.05, 1 - 1e-9])
def test_a_thousand_million_samples_in_nothing_slips(share: float) -> None:
    """Around far indices the counts still grow by one in one place at a time, and are still what is due."""
    far = 10**9
    mixture = Mixture(mixture_config(constant(share), constant(0.3), [constant(0.7), constant(0.3)], [constant(1.0)]))
    before = {kind: mixture.count(kind, far) for kind in mixture.kinds}
    assert sum(before.values()) == far
    assert abs(before[Kind("instruction", "i0")] - share * far) <= 0.5 + 1e-5
    counts = Counter(before)
    for sample in range(far, far + 300):
        draw = mixture.locate(sample)
        counts[Kind(draw.objective, draw.source)] += 1
        assert all(mixture.count(kind, sample + 1) == counts[kind] for kind in mixture.kinds)


def test_a_source_ramped_down_to_nothing_ends_and_one_ramped_up_begins() -> None:
    fading = {"start": 1.0, "end": 0.0, "from_samples": 100, "over_samples": 100}
    coming = {"start": 0.0, "end": 1.0, "from_samples": 100, "over_samples": 100}
    mixture = Mixture(mixture_config({**fading, "start": 0.5}, constant(0.5), [fading, coming], [constant(1.0)]))
    draws = [mixture.locate(sample) for sample in range(1000)]
    assert {draw.source for draw in draws[:90]} == {"t0", "i0"}
    assert {draw.source for draw in draws[210:]} == {"t1"}


def test_instructions_that_end_between_two_samples_end_well() -> None:
    """1.65 instruction rows are due in all; the second is drawn and shared out although no share is left."""
    ending = {"start": 0.55, "end": 0.0, "from_samples": 3, "over_samples": 0}
    mixture = Mixture(mixture_config(ending, constant(0.0), [constant(1.0)], [constant(1.0), constant(1.0)]))
    drawn = [draw for draw in map(mixture.locate, range(50)) if draw.objective == "instruction"]
    assert drawn == [Draw("instruction", "i0", 0), Draw("instruction", "i1", 0)]


def test_the_settled_mixture_has_no_ramps() -> None:
    ramp = {"start": 1.0, "end": 0.0, "from_samples": 0, "over_samples": 1000}
    config = mixture_config(ramp, constant(0.0), [constant(1.0)], [constant(1.0)])
    assert Mixture(config).locate(0).objective == "instruction"
    assert [Mixture(config, settled=True).locate(sample) for sample in range(3)] == [
        Draw("gmask", "t0", ordinal) for ordinal in range(3)
    ]


def test_without_a_share_there_is_no_mixture() -> None:
    with pytest.raises(ValueError, match="no source has a share"):
        Mixture(mixture_config(constant(0.0), constant(0.3), [], []))
