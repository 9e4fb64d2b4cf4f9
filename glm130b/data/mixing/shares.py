"""What share of the samples each objective and source is due, over the run."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from glm130b.config.ramp import Ramp
from glm130b.config.sections import RunConfig, SourceConfig

# Due shares are integers in units of 2^-60 of a sample, so that their sums are exact: no rounding repeats or skips a
# row.
SAMPLE = 1 << 60


@dataclass(frozen=True)
class Kind:
    """Samples of one objective drawn from one source."""

    objective: str
    source: str

    @property
    def section(self) -> Literal["text", "instructions"]:
        """Section of ``data`` that the source stands in; the same name in both is two sources."""
        return "instructions" if self.objective == "instruction" else "text"


@dataclass(frozen=True)
class DueShares:
    """Shares that are constant between two knots; a ramp is a staircase whose sum is right to 1/8 of a sample."""

    knots: tuple[int, ...]
    """Sample indices where the shares change, rising, the first 0."""
    dues: dict[Kind, tuple[int, ...]]
    """What a kind is due of every sample from each knot on, in units of 1 / ``SAMPLE``; kinds without are left out."""


def due_shares(config: RunConfig, *, settled: bool = False) -> DueShares:
    """The shares of a run; ``settled`` gives all samples the shares that stand when the last ramp has ended."""
    knots = _knots(config)
    last = shares_at(config, knots[-1])
    stairs = [last]
    if not settled:
        # A linear share is the mean of its first and last sample, all the way between two knots.
        ends = [(shares_at(config, start), shares_at(config, end - 1)) for start, end in pairwise(knots)]
        stairs = [*({kind: (first[kind] + final[kind]) / 2 for kind in last} for first, final in ends), last]
    dues = {kind: tuple(round(stair[kind] * SAMPLE) for stair in stairs) for kind in last}
    return DueShares((0,) if settled else knots, {kind: due for kind, due in dues.items() if any(due)})


def shares_at(config: RunConfig, sample: int) -> dict[Kind, float]:
    """Share of every kind among samples such as the one with this index; they add up to 1."""
    instruction, mask = config.objective.instruction_share.at(sample), config.objective.mask_share.at(sample)
    text, instructions = _normalised(config.data.text, sample), _normalised(config.data.instructions, sample)
    return {
        **{Kind("gmask", name): (1 - instruction) * (1 - mask) * share for name, share in text.items()},
        **{Kind("mask", name): (1 - instruction) * mask * share for name, share in text.items()},
        **{Kind("instruction", name): instruction * share for name, share in instructions.items()},
    }


def _normalised(sources: dict[str, SourceConfig], sample: int) -> dict[str, float]:
    weights = {name: source.weight.at(sample) for name, source in sources.items()}
    total = sum(weights.values())
    return {name: weight / total if total else 0.0 for name, weight in weights.items()}


def _knots(config: RunConfig) -> tuple[int, ...]:
    """Both ends of every ramp, and knots inside it about as far apart as half the root of its length.

    So a ramp over n samples by d is off its staircase by d / 32 of a sample at most, and has 2 sqrt(n) steps.
    """
    knots = {0}
    for ramp in _ramps(config):
        if ramp.start != ramp.end:
            first, last = ramp.from_samples, ramp.from_samples + ramp.over_samples
            knots.update(range(first, last, math.isqrt(ramp.over_samples) // 2 or 1), [last])
    return tuple(sorted(knots))


def _ramps(config: RunConfig) -> Iterator[Ramp]:
    yield config.objective.instruction_share
    yield config.objective.mask_share
    for source in (*config.data.text.values(), *config.data.instructions.values()):
        yield source.weight
