"""Which source every sample is drawn from: each is within one sample of its due at every moment, without a state."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from glm130b.data.mixing.chapter import Chapter
from glm130b.data.mixing.due import NEVER, SAMPLE, Due

_BLOCK_SAMPLES = 4096
_BLOCKS_KEPT = 4


class _Block(NamedTuple):
    """Some thousand samples, drawn at once."""

    before: list[int]
    """Counts of the sources before the block."""
    sources: list[int]
    ordinals: list[int]
    after: list[int]


class Apportionment:
    """The source of every sample and how often it was drawn from before: a pure function of the sample's index.

    Sources are numbers 0, 1... Drawing by chance drifts from the dues by the square root of the samples; rounding each
    due on its own does not give every sample to one source; trees of choices between two add up what each choice is
    off. Here the samples are drawn in order, earliest deadline first (`Chapter` has the proof), and any sample may be
    asked for: a chapter finds its state at a sample from a little before it. The state is kept block by block, so that
    a sample after its neighbour costs a microsecond or two, and one that stands alone as many as the draws of a few
    turns of the rarest source.

    A chapter begins where a source ends, and with every era. **Within an era each source is less than one sample off
    its due, for every n.** A new era takes over what each source lacks or is ahead, and the bound holds on: always if
    what the sources lack together is less than a sample, and else where a trial shows that no draw comes too late.
    There are changes that no order of draws survives: let six sources be due half a sample each, three of them have had
    one and end; the others, due 1/3 of every sample now, all fall due within two samples. If the trial fails, what is
    lacking and ahead is scaled down to less than a sample in all. The rest, less than one sample for each source, is
    written off, and the bound holds on for the dues without it.
    """

    def __init__(self, eras: Sequence[Sequence[Due]]) -> None:
        """The dues of every source in each era; those of an era share their first knot, its first sample, and add up
        to one sample for each. The first era begins at 0.
        """
        self._eras = eras
        firsts = [era[0].knots[0] for era in eras]
        self._starts: list[tuple[int, int]] = []
        """Start and era of each chapter."""
        for number, (era, first, end) in enumerate(zip(eras, firsts, (*firsts[1:], NEVER), strict=True)):
            ends = {due.ends for due in era if first < due.ends < end}
            self._starts += [(start, number) for start in sorted({first, *ends})]
        self._chapters: list[Chapter] = []
        self._blocks: dict[int, _Block] = {}

    def locate(self, sample: int) -> tuple[int, int]:
        """The source of the sample, and how many earlier samples that source had."""
        number, index = divmod(sample, _BLOCK_SAMPLES)
        block = self._blocks.get(number) or self._drawn(number)
        return block.sources[index], block.ordinals[index]

    def counts(self, samples: int) -> list[int]:
        """How many of the first ``samples`` each source had."""
        number, index = divmod(samples, _BLOCK_SAMPLES)
        block = self._blocks.get(number) or self._drawn(number)
        within = Counter(block.sources[:index])
        return [before + within[source] for source, before in enumerate(block.before)]

    def _drawn(self, number: int) -> _Block:
        """A block that is not at hand; the one before spares finding the state."""
        first, end = number * _BLOCK_SAMPLES, (number + 1) * _BLOCK_SAMPLES
        before = self._blocks.get(number - 1)
        counts = list(before.after) if before else self._chapters_up_to(first)[-1].counts_at(first)
        block = _Block(list(counts), [], [], counts)
        while first < end:
            chapters = self._chapters_up_to(first)
            last = min(end, self._starts[len(chapters)][0]) if len(chapters) < len(self._starts) else end
            block.sources.extend(chapters[-1].draw(first, last, counts))
            first = last
        seen = list(block.before)
        for source in block.sources:
            block.ordinals.append(seen[source])
            seen[source] += 1
        if len(self._blocks) == _BLOCKS_KEPT:
            self._blocks.pop(next(iter(self._blocks)))
        self._blocks[number] = block
        return block

    def _chapters_up_to(self, sample: int) -> list[Chapter]:
        """The chapters that have begun at a sample, the last one its own."""
        while len(self._chapters) < len(self._starts) and self._starts[len(self._chapters)][0] <= sample:
            self._chapters.append(self._next_chapter())
        return self._chapters[: bisect_right(self._starts, (sample, len(self._eras)))]

    def _next_chapter(self) -> Chapter:
        start, era = self._starts[len(self._chapters)]
        if not self._chapters:
            return Chapter(start, [0] * len(self._eras[0]), self._eras[0])
        earlier = self._chapters[-1]
        counts = earlier.counts_at(start)
        if start > self._eras[era][0].knots[0]:
            return Chapter(start, counts, earlier.dues)
        lacks = [due.total(start) - count * SAMPLE for due, count in zip(earlier.dues, counts, strict=True)]
        chapter = Chapter(start, counts, _carried(self._eras[era], counts, lacks))
        if chapter.keeps_time():
            return chapter
        return Chapter(start, counts, _carried(self._eras[era], counts, _less_than_a_sample(lacks)))


def _carried(era: Sequence[Due], counts: Sequence[int], lacks: Sequence[int]) -> list[Due]:
    """The dues of an era whose first sample finds these counts, and sources that lack this much of their dues."""
    return [
        Due(due.knots, due.shares, at_first=count * SAMPLE + lack)
        for due, count, lack in zip(era, counts, lacks, strict=True)
    ]


def _less_than_a_sample(lacks: Sequence[int]) -> list[int]:
    """What each source lacks or, below 0, is ahead, scaled so that those that lack do so by less than a sample in all.

    The sum is 0 before and after.
    """
    lacking = sum(lack for lack in lacks if lack > 0)
    if lacking < SAMPLE:
        return list(lacks)
    scaled = [abs(lack) * (SAMPLE - 1) // lacking * (1 if lack > 0 else -1) for lack in lacks]
    side = max if sum(scaled) > 0 else min  # floors leave one side larger by a few units
    scaled[scaled.index(side(scaled))] -= sum(scaled)
    return scaled
