"""Which objective and which source a sample is of: every share is kept at every moment, without a state."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

from glm130b.data.mixing.apportionment import Apportionment
from glm130b.data.mixing.due import NEVER, Due
from glm130b.data.mixing.era import Era
from glm130b.data.mixing.shares import EraShares, Kind, Source, era_shares
from glm130b.data.mixing.split import ObjectiveSplit

_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, lie far from each other however many there are."""


class Draw(NamedTuple):
    """What one sample is made of."""

    objective: str
    source: str
    ordinal: int
    """How many earlier samples drew from this source, under any objective, in all eras."""

    @property
    def section(self) -> Literal["text", "instructions"]:
        """Section of ``data`` that the source stands in."""
        return Kind(self.objective, self.source).section


class Mixture:
    """The objective and source of every sample, by its index alone.

    The sources share the samples, the objectives share the draws of each text source. After any n samples

    - each source is less than one sample off what its shares add up to, with ramps as staircases (`EraShares`);
      `Apportionment` says what a new era may write off;
    - each objective of a source is off its due of that source's draws by less than 1, [MASK] and [sMASK] by less than
      1.5 where there are both (`ObjectiveSplit`);
    - an objective as a whole is off by the sum of that over its text sources at most. The sources round at different
      points of their counts, so that equal sources do not all round at once.

    The objective follows the count of its source and not the sample's index: two patterns of the index would beat.
    """

    def __init__(self, eras: Sequence[Era], *, settled: bool = False) -> None:
        """``settled`` mixes all samples as when the last ramp of the last era has ended; the held-out split does so."""
        self.eras, self._settled = tuple(eras), settled
        self._shares = [era_shares(eras[-1], settled=True)] if settled else [era_shares(era) for era in eras]
        self._starts = [era.knots[0] for era in self._shares]
        # In the order in which they come up, so that sources of later eras leave the earlier ones as they are.
        self._sources = tuple(dict.fromkeys(source for era in self._shares for source in era.sources))
        self._dues = [[_due(era, source) for source in self._sources] for era in self._shares]
        self._draws = Apportionment(self._dues)
        self._splits: list[dict[int, ObjectiveSplit]] = []
        self.kinds: tuple[Kind, ...] = tuple(dict.fromkeys(self._kinds_with_a_share()))
        """Every objective and source that has a share at some time."""

    def __reduce__(self) -> tuple[Callable[[Sequence[Era]], "Mixture"], tuple[Sequence[Era]]]:
        """Pickled as its eras: all else follows from them, and a long ramp has tens of thousands of knots."""
        return partial(Mixture, settled=self._settled), (self.eras,)

    def locate(self, sample: int) -> Draw:
        """The draw of the sample with this index."""
        number, ordinal = self._draws.locate(sample)
        source = self._sources[number]
        if source.section == "instructions":
            return Draw("instruction", source.name, ordinal)
        return Draw(self._splits_at(sample)[number].objective(ordinal), source.name, ordinal)

    def rows(self, samples: int) -> dict[Kind, int]:
        """How many of the first ``samples`` are of each kind, all of them in all. A kind that has a share only after
        the end of its era may have had one row ahead of its due, and stands here too.
        """
        rows: dict[Kind, int] = {}
        for number, (source, draws) in enumerate(zip(self._sources, self._draws.counts(samples), strict=True)):
            if source.section == "instructions":
                rows[Kind("instruction", source.name)] = draws
            else:
                counts = self._splits_at(samples)[number].counts(draws)
                rows |= {Kind(objective, source.name): count for objective, count in counts.items()}
        return {kind: count for kind, count in rows.items() if count or kind in self.kinds}

    def _splits_at(self, sample: int) -> dict[int, ObjectiveSplit]:
        """The split of each text source in the era of a sample."""
        era = bisect_right(self._starts, sample) - 1
        while len(self._splits) <= era:
            self._splits.append(self._next_splits())
        return self._splits[era]

    def _next_splits(self) -> dict[int, ObjectiveSplit]:
        era = len(self._splits)
        draws = self._draws.counts(self._starts[era])
        texts = [number for number, source in enumerate(self._sources) if source.section == "text"]
        return {
            number: ObjectiveSplit(
                draws[number],
                self._dues[era][number],
                self._shares[era].objectives,
                phase=(0.5 + place * _GOLDEN) % 1,
                before=self._splits[-1][number] if era else None,
            )
            for place, number in enumerate(texts)
        }

    def _kinds_with_a_share(self) -> Iterator[Kind]:
        for era, end in zip(self._shares, (*self._starts[1:], NEVER), strict=True):
            pieces = range(bisect_left(era.knots, end))
            for source, shares in era.sources.items():
                objectives = era.objectives if source.section == "text" else {"instruction": shares}
                for objective, parts in objectives.items():
                    if any(shares[piece] and parts[piece] for piece in pieces):
                        yield Kind(objective, source.name)


def _due(era: EraShares, source: Source) -> Due:
    return Due(era.knots, era.sources.get(source, (0,) * len(era.knots)))
