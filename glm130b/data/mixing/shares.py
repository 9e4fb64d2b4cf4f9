"""What share of the samples each source and objective is due, over an era."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from glm130b.config.ramp import Ramp
from glm130b.data.arrays import BoolArray, Int64Array
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
    """Shares that are constant between two knots; a ramp is a staircase whose sum is right to 1/4 of a sample."""

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
    firsts = knots[-1:] if settled else knots
    lasts = np.append(firsts[1:] - 1, firsts[-1])
    return EraShares(
        (0,) if settled else tuple(knots.tolist()),
        _stairs(_means(partial(_source_shares, era), firsts, lasts)),
        _stairs(_means(partial(_objective_shares, era), firsts, lasts)),
    )


def _source_shares(era: Era, samples: Floats) -> dict[Source, Floats]:
    """Share of every source among samples such as those with these indices."""
    instruction = _values(era.instruction_share, samples)
    text, instructions = _parts(era.text, samples), _parts(era.instructions, samples)
    return {
        **{Source("text", name): (1 - instruction) * part for name, part in text.items()},
        **{Source("instructions", name): instruction * part for name, part in instructions.items()},
    }


def _objective_shares(era: Era, samples: Floats) -> dict[str, Floats]:
    """Share of every objective among text rows such as those with these indices."""
    mask, smask = _values(era.mask_share, samples), _values(era.smask_share, samples)
    return {"gmask": np.maximum(1 - mask - smask, 0), "mask": mask, "smask": smask}


def _parts(weights: Mapping[str, Ramp], samples: Floats) -> dict[str, Floats]:
    """Weights divided by their sum; 0 where they are all 0."""
    values = {name: _values(weight, samples) for name, weight in weights.items()}
    total = sum(values.values(), start=np.zeros(len(samples)))
    return {name: value / np.where(total, total, 1) for name, value in values.items()}


def _values(ramp: Ramp, samples: Floats) -> Floats:
    """``ramp.at`` of each sample."""
    since = (samples - ramp.from_samples) / (ramp.over_samples or 1)
    values = ramp.start + (ramp.end - ramp.start) * np.clip(since, 0, 1)
    return np.where(samples < ramp.from_samples + ramp.over_samples, values, ramp.end)


def _means(
    shares_at: Callable[[Floats], dict[_Key, Floats]], firsts: Int64Array, lasts: Int64Array
) -> dict[_Key, Floats]:
    """Mean of every share over the samples from each first to its last.

    The sum of a smooth share over samples is its integral between the outer two, and half of these (Euler, Maclaurin).
    A share is a quotient of polynomials there, so four points of Gauss give the integral to a hair.
    """
    nodes, weights = np.polynomial.legendre.leggauss(4)
    gaps = lasts - firsts
    ends = 0.5 / (gaps + 1)
    means = {key: np.zeros(len(firsts)) for key in shares_at(firsts[:0].astype(np.float64))}
    for place, weight in ((0.0, ends), *zip((nodes + 1) / 2, np.outer(weights, gaps * ends), strict=True), (1.0, ends)):
        for key, share in shares_at(firsts + place * gaps).items():
            means[key] += weight * share
    return means


def _stairs(means: Mapping[_Key, Floats]) -> dict[_Key, tuple[int, ...]]:
    """The means as integers that add up to exactly one sample; the largest takes what rounding leaves."""
    if not means:
        raise ValueError("no source has a share")
    shares = np.stack(list(means.values()))
    totals = sum(shares, start=np.zeros(shares.shape[1]))
    if not totals[0]:
        raise ValueError("no source has a share")
    held = np.maximum.accumulate(np.where(totals, np.arange(len(totals)), 0))
    stairs = np.rint(shares[:, held] / totals[held] * SAMPLE).astype(np.int64)
    stairs[stairs.argmax(axis=0), np.arange(len(held))] += SAMPLE - stairs.sum(axis=0)
    return {key: tuple(stair) for key, stair in zip(means, stairs.tolist(), strict=True)}


def _knots(era: Era) -> Int64Array:
    """The era's first sample, both ends of every ramp, and the knots that halving what is between them gives.

    A share that goes one way by d within a stair of h samples, whose mean is the stair, is off by d h / 4 at most, at
    the knots by nothing. So stairs are halved until d h is 1/2. A share is no straight line, though the weights are:
    where the sum of the weights is small, stairs are short. A ramp over n samples has 3 sqrt(n) stairs at most.
    """
    ends = {era.from_samples}
    for ramp in _ramps(era):
        if ramp.start != ramp.end:
            ends.update((ramp.from_samples, ramp.from_samples + ramp.over_samples))
    knots = np.array(sorted(end for end in ends if end >= era.from_samples))
    while (steep := _is_steep(era, knots)).any():
        knots = np.sort(np.append(knots, (knots[:-1] + knots[1:])[steep] // 2))
    return knots


def _is_steep(era: Era, knots: Int64Array) -> BoolArray:
    """Whether some share goes too far from a knot to the next."""
    lengths = np.diff(knots)
    places = [knots[:-1] + part * (lengths - 1) / 4 for part in range(5)]
    steep = np.zeros(len(lengths), dtype=np.bool_)
    points = [[*_source_shares(era, place).values(), *_objective_shares(era, place).values()] for place in places]
    for share in zip(*points, strict=True):
        steep |= np.ptp(share, axis=0) * lengths > 0.5
    return steep


def _ramps(era: Era) -> Iterator[Ramp]:
    yield from (era.instruction_share, era.mask_share, era.smask_share)
    yield from era.text.values()
    yield from era.instructions.values()
