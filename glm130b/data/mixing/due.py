"""What one source is due of the first n samples: a line of straight pieces, in exact integers."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

SAMPLE = 1 << 60
"""One sample. Dues are integers in units of 2^-60 of a sample, so that their sums are exact."""
NEVER = 1 << 62
"""Later than any sample."""


class Due:
    """The running sum of a share that is constant between two knots.

    The unit j of a source, j = 0, 1.., is its draw number j. For the source to stay within one sample of its due, the
    unit has to be drawn while the due is between j and j + 1: not before its release, not after its deadline.
    """

    def __init__(self, knots: Sequence[int], shares: Sequence[int], *, at_first: int = 0) -> None:
        """``shares[k]`` is due of every sample from ``knots[k]`` on; ``at_first`` has been due at ``knots[0]``."""
        self.knots, self.shares = knots, shares
        steps = ((end - start) * share for (start, end), share in zip(pairwise(knots), shares, strict=False))
        self.totals = list(accumulate(steps, initial=at_first))
        with_share = [end for end, share in zip((*knots[1:], NEVER), shares, strict=True) if share]
        self.ends: int = with_share[-1] if with_share else knots[0]
        """From this sample on nothing is due any more."""

    def total(self, samples: int) -> int:
        """What has been due up to this sample, in units of 1 / ``SAMPLE``; ``samples`` is not below ``knots[0]``."""
        piece = bisect_right(self.knots, samples) - 1
        return self.totals[piece] + (samples - self.knots[piece]) * self.shares[piece]

    def release(self, unit: int) -> int:
        """First sample that may be the unit: the due is above ``unit`` after it."""
        level = unit * SAMPLE
        piece = bisect_right(self.totals, level) - 1
        if piece < 0:
            return self.knots[0]
        share = self.shares[piece]
        return self.knots[piece] + (level - self.totals[piece]) // share if share else NEVER

    def deadline(self, unit: int) -> int:
        """Last sample that may be the unit: the due is below ``unit + 1`` before it."""
        level = (unit + 1) * SAMPLE
        piece = bisect_left(self.totals, level) - 1
        if piece < 0:
            return self.knots[0] - 1
        share = self.shares[piece]
        return self.knots[piece] - 1 - (self.totals[piece] - level) // share if share else NEVER
