"""What share of the samples each source and objective is due, over an era."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from glm130b.config.ramp import Ramp
from glm130b.data.arrays import Int64Array
from glm130b.data.mixing.due import SAMPLE
from glm130b.data.mixing.era import Era

Floats = NDArray[np.float64]
_Key = TypeVar("_Key")


class Source(NamedTuple):
    """A corpus to draw from; the same name in both sections is two sources."""

    section: Literal["text", "instructions"]
    name: str


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
class EraShares:
    """Shares that are constant between two knots; a ramp is a staircase whose sum is right to 1/8 of a sample."""

    knots: tuple[int, ...]
    """Sample indices where the shares change, rising, the first that of the era."""
    sources: dict[Source, tuple[int, ...]]
    """What a source is due of every sample from each knot on, in units of 1 / ``SAMPLE``, exactly one sample in all."""
    objectives: dict[str, tuple[int, ...]]
    """What an objective is due of every draw of a text source from each knot on, as ``sources``."""


def era_shares(era: Era, *, settled: bool = False) -> EraShares:
    """The shares of an era; ``settled`` gives all samples from 0 on those that stand when its last ramp has ended.

    Where no source has a share the one before holds on; no run gets there (``config.rules``). Raises ValueError if
    there is none before.
    """
    knots = _knots(era)
    # A linear share is the mean of its first and last sample, all the way between two knots.
    firsts = np.array([knots[-1]] if settled else knots)
    lasts = np.array([knots[-1]] if settled else [*(knot - 1 for knot in knots[1:]), knots[-1]])
    return EraShares(
        (0,) if settled else knots,
        _stairs(_source_shares(era, firsts), _source_shares(era, lasts)),
        _stairs(_objective_shares(era, firsts), _objective_shares(era, lasts)),
    )


def _source_shares(era: Era, samples: Int64Array) -> dict[Source, Floats]:
    """Share of every source among samples such as those with these indices."""
    instruction = _values(era.instruction_share, samples)
    text, instructions = _parts(era.text, samples), _parts(era.instructions, samples)
    return {
        **{Source("text", name): (1 - instruction) * part for name, part in text.items()},
        **{Source("instructions", name): instruction * part for name, part in instructions.items()},
    }


def _objective_shares(era: Era, samples: Int64Array) -> dict[str, Floats]:
    """Share of every objective among text rows such as those with these indices."""
    mask, smask = _values(era.mask_share, samples), _values(era.smask_share, samples)
    return {"gmask": np.maximum(1 - mask - smask, 0), "mask": mask, "smask": smask}


def _parts(weights: Mapping[str, Ramp], samples: Int64Array) -> dict[str, Floats]:
    """Weights divided by their sum; 0 where they are all 0."""
    values = {name: _values(weight, samples) for name, weight in weights.items()}
    total = sum(values.values(), start=np.zeros(len(samples)))
    return {name: value / np.where(total, total, 1) for name, value in values.items()}


def _values(ramp: Ramp, samples: Int64Array) -> Floats:
    """``ramp.at`` of each sample."""
    if ramp.start == ramp.end:
        return np.full(len(samples), ramp.end)
    return np.array([ramp.at(sample) for sample in samples.tolist()])


def _stairs(first: Mapping[_Key, Floats], last: Mapping[_Key, Floats]) -> dict[_Key, tuple[int, ...]]:
    """The means of both as integers that add up to exactly one sample; the largest takes what rounding leaves."""
    if not first:
        raise ValueError("no source has a share")
    shares = np.stack([first[key] + last[key] for key in first])
    totals = sum(shares, start=np.zeros(shares.shape[1]))
    if not totals[0]:
        raise ValueError("no source has a share")
    held = np.maximum.accumulate(np.where(totals, np.arange(len(totals)), 0))
    stairs = np.rint(shares[:, held] / totals[held] * SAMPLE).astype(np.int64)
    stairs[stairs.argmax(axis=0), np.arange(len(held))] += SAMPLE - stairs.sum(axis=0)
    return {key: tuple(stair) for key, stair in zip(first, stairs.tolist(), strict=True)}


def _knots(era: Era) -> tuple[int, ...]:
    """The era's first sample, both ends of every ramp, and knots inside it about half the root of its length apart.

    So a ramp over n samples by d is off its staircase by d / 32 of a sample at most, and has 2 sqrt(n) steps.
    """
    knots = {era.from_samples}
    for ramp in _ramps(era):
        if ramp.start != ramp.end:
            first, last = ramp.from_samples, ramp.from_samples + ramp.over_samples
            knots.update(range(first, last, math.isqrt(ramp.over_samples) // 2 or 1), [last])
    return tuple(sorted(knot for knot in knots if knot >= era.from_samples))


def _ramps(era: Era) -> Iterator[Ramp]:
    yield from (era.instruction_share, era.mask_share, era.smask_share)
    yield from era.text.values()
    yield from era.instructions.values()
