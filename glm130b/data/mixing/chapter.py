"""A stretch of the run in which the shared samples go to whose next draw is due first."""

from bisect import bisect_left
from collections.abc import Sequence
from heapq import heappop, heappush

from glm130b.data.mixing.due import NEVER, SAMPLE, Due

_LONGEST_TRIAL = 1_000_000  # samples, a second or two


class Chapter:
    """Earliest deadline first among the sources that are due something, from a sample with known counts.

    Every sample is the released, undrawn unit with the earliest deadline (``Due`` says when a unit may be drawn; ties
    go to the first source). No unit is ever late or early (the chairman assignment: Tijdeman 1980; Steiner and Yeomans
    1993): units with release from a on and deadline up to b are at most the floor of what falls due in [a, b], so they
    fit there (Hall), for any a after the start; the start itself is `Apportionment`'s to make feasible. And while a
    sample n is to come, the counts add up to n and the dues after it to n + 1, so that some unit has been released.

    **Sources that have ended** before the chapter, in the same era, may hold a unit that has no deadline; those that
    ended with an earlier era lack nothing (`Apportionment`). Let all that have ended lack E samples of their dues.
    Below 1 nothing of it is ever drawn: after a sample n the others are due 1 - E more than they had before it, so one
    of their units has been released. Of 1 and more, floor(E) units get the deadline at which each of the other sources
    has been due what it had at the start. From there on the others are due E less than there are samples since the
    start, so there is room; before, they have it as if those units were not.

    **Random access.** Let no unit that is open at n (due in part) be open at an earlier a. Suppose that at a each
    source had had its due rounded down or up, as many up as the counts ask for: those whose open units have the
    earliest deadlines. Then the counts at n are the true ones, however the true counts at a are rounded:
    - From there no unit is late. Take a deadline b. If the open units of all that are up have deadlines up to b, no
      source had more by a than is due by b, so what is left to draw by b is the sum of what is due by then less the
      counts, the same as in truth or less. If not, no source that is down has its open unit due by b, so no source
      has more left to draw by b than in truth.
    - For any unit x, let p be the number of released, undrawn units that precede x by deadline. Each sample takes p to
      max(0, p + units released - 1). Truth and the supposed start agree on p at a if x comes after all units open at
      a, and forever then; if not, x is due before n, and both have p = 0 by n because nothing is late.
    """

    def __init__(self, start: int, counts: Sequence[int], dues: Sequence[Due]) -> None:
        """``counts`` of all sources among the samples before ``start``."""
        self.start, self.counts, self.dues = start, tuple(counts), dues
        self._live = [source for source, due in enumerate(dues) if due.ends > start]
        self._ended = [source for source, due in enumerate(dues) if due.ends <= start]
        self._lacks = [due.total(start) - count * SAMPLE for due, count in zip(dues, counts, strict=True)]
        given = max(0, sum(self._lacks[source] for source in self._ended) // SAMPLE)
        self._last_units = sorted(self._ended, key=lambda source: -self._lacks[source])[:given]
        """Ended sources that are still given one unit. As none lacks a sample, each of them lacks something."""
        ahead = [source for source in self._live if self._lacks[source] < 0]
        self._last_deadline = max((start, *(dues[source].deadline(counts[source] - 1) for source in ahead)))

    def keeps_time(self) -> bool:
        """Whether no unit will be late. So it is where a source ends; a new era may ask for too much at once.

        What is left to draw by a deadline b exceeds the samples up to b by less than what the live sources still have
        ahead of their dues after b, less E. Where that is a sample or more, drawing shows whether there is room.
        """
        lacking = sum(self._lacks[source] for source in self._ended)

        def is_safe(samples: int) -> bool:
            ahead = (self.counts[source] * SAMPLE - self.dues[source].total(samples) for source in self._live)
            return sum(max(0, over) for over in ahead) - lacking < SAMPLE

        trial = range(self.start, self.start + _LONGEST_TRIAL)
        end = self.start + bisect_left(trial, True, key=is_safe)
        if end == trial.stop:
            return False
        counts = list(self.counts)
        for sample, source in zip(range(self.start, end), self.draw(self.start, end, list(counts)), strict=True):
            if source in self._live and sample > self.dues[source].deadline(counts[source]):
                return False
            counts[source] += 1
        return all(self.dues[source].deadline(counts[source]) >= end for source in self._live)

    def counts_at(self, samples: int) -> list[int]:
        """How many of the first ``samples`` each source had."""
        since = min((self.dues[source].release(self._whole(source, samples)) for source in self._live), default=NEVER)
        first, counts = self.start, list(self.counts)
        if since > self.start and (not self._last_units or since > self._last_deadline):
            first, counts = min(since, samples), self._rounded(min(since, samples))
        self.draw(first, samples, counts)
        return counts

    def _whole(self, source: int, samples: int) -> int:
        """What the source is due, rounded down."""
        return self.dues[source].total(samples) // SAMPLE

    def _rounded(self, samples: int) -> list[int]:
        """The dues, those whose open units have the earliest deadlines rounded up."""
        counts = list(self.counts)
        for source in self._last_units:
            counts[source] += 1
        open_units = []
        for source in self._live:
            counts[source] = whole = self._whole(source, samples)
            if self.dues[source].total(samples) > whole * SAMPLE:
                open_units.append((self.dues[source].deadline(whole), source))
        for _, source in sorted(open_units)[: samples - sum(counts)]:
            counts[source] += 1
        return counts

    def draw(self, first: int, last: int, counts: list[int]) -> list[int]:
        """Source of each sample from ``first`` up to ``last``; ``counts``, before ``first``, go on to ``last``."""
        dues, drawn = self.dues, []
        ready: list[tuple[int, int]] = []
        waiting: dict[int, list[int]] = {}
        for source in self._live:
            waiting.setdefault(max(first, dues[source].release(counts[source])), []).append(source)
        for source in self._last_units:
            if counts[source] == self.counts[source]:
                heappush(ready, (self._last_deadline, source))
        for sample in range(first, last):
            for source in waiting.pop(sample, ()):
                heappush(ready, (dues[source].deadline(counts[source]), source))
            source = heappop(ready)[1]
            drawn.append(source)
            counts[source] += 1
            if dues[source].ends > self.start:
                waiting.setdefault(max(sample + 1, dues[source].release(counts[source])), []).append(source)
        return drawn
