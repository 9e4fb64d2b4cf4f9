"""Which source every sample is drawn from: each is within one sample of its due at every moment, without a state."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from glm130b.data.mixing.chapter import Chapter
from glm130b.data.mixing.due import NEVER, SAMPLE, Due

_BLOCK_SAMPLES = 4096
_BLOCKS_KEPT = 16  # a block at each of the places that a run with skipped steps counts up to


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
    its due, for every n.** From the first sample of an era on only sources with a share in that era are drawn.

    A new era takes over what each of its sources lacks or is ahead, and writes some of it off, less than one sample for
    each source; for the dues without that the bound holds on. So after k changes of the mixture a source is less than
    k + 1 samples off its due. Written off is
    - what the sources that have no share in the new era lack, and as much of what all sources together are ahead;
    - if that leaves an order of draws in which one comes too late, of the rest what exceeds a sample in all. There are
      changes that no order survives: let six sources be due half a sample each, three of them have had one and end; the
      others, due 1/3 of every sample now, all fall due within two samples. Where less than a sample is lacking in all
      no draw is ever late; else a trial shows it.
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
        block = self._block(number)
        return block.sources[index], block.ordinals[index]

    def counts(self, samples: int) -> list[int]:
        """How many of the first ``samples`` each source had."""
        number, index = divmod(samples, _BLOCK_SAMPLES)
        block = self._block(number)
        within = Counter(block.sources[:index])
        return [before + within[source] for source, before in enumerate(block.before)]

    def _block(self, number: int) -> _Block:
        """A block, which becomes the last to be forgotten."""
        block = self._blocks.pop(number, None) or self._drawn(number)
        self._blocks[number] = block
        if len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.pop(next(iter(self._blocks)))
        return block

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
        # A source that has no share any more may be gone from the config, so nothing can be owed to it.
        owed = [lack if due.ends > start else min(lack, 0) for due, lack in zip(self._eras[era], lacks, strict=True)]
        lacks = _scaled(owed, sum(lack for lack in owed if lack > 0))
        chapter = Chapter(start, counts, _carried(self._eras[era], counts, lacks))
        if chapter.keeps_time():
            return chapter
        return Chapter(start, counts, _carried(self._eras[era], counts, _scaled(lacks, SAMPLE - 1)))


def _carried(era: Sequence[Due], counts: Sequence[int], lacks: Sequence[int]) -> list[Due]:
    """The dues of an era whose first sample finds these counts, and sources that lack this much of their dues."""
    return [
        Due(due.knots, due.shares, at_first=count * SAMPLE + lack)
        for due, count, lack in zip(era, counts, lacks, strict=True)
    ]


def _scaled(lacks: Sequence[int], most: int) -> list[int]:
    """What each source lacks or, below 0, is ahead: what is more than ``most`` in all scaled down to it, on each side.

    The sum is 0 after it if no more is lacking than ahead.
    """
    sides = {True: sum(lack for lack in lacks if lack > 0), False: -sum(lack for lack in lacks if lack < 0)}
    scaled = [lack * min(most, side) // side if (side := sides[lack > 0]) else 0 for lack in lacks]
    # Rounded down, they add up to a few units below 0 at most.
    scaled[scaled.index(min(scaled))] -= sum(scaled)
    return scaled
