"""Which objective and which source a sample is of: every share is kept at every moment, without a state.

Kinds drawn at random drift from their shares by the square root of the samples, and counting them needs a state that
survives restarts. Here the sample index alone decides. Take two kinds and let F(n) be what one of them is due after n
samples, the sum of its shares. Sample n is of that kind if round(F(n)) grows with it; then after any n it has had
round(F(n)) samples, half a sample from its due at most. More kinds are a tree of such choices, each counted in the
draws of the choice above it.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from glm130b.config.sections import RunConfig
from glm130b.data.shares import SAMPLE, DueShares, Kind, due_shares


@dataclass(frozen=True)
class Draw:
    """What one sample is made of."""

    objective: str
    source: str
    ordinal: int
    """How many earlier samples drew from this source, under any objective."""


class Mixture:
    """The objective and source of every sample.

    The tree is: instructions or text, [MASK] or [gMASK], then the sources. What a choice is off its due after n
    samples is at most 1/2 plus its share of what the choice above it is off. So instructions are within 1/2 of a
    sample for every n, [MASK] and [gMASK] within 1, and a source under an objective within 1 where sources are cut in
    even halves and within 2 always.
    """

    def __init__(self, config: RunConfig, *, settled: bool = False) -> None:
        """``settled`` mixes all samples as when the last ramp has ended; the held-out split does so."""
        shares = due_shares(config, settled=settled)
        by_objective: dict[str, list[Kind]] = {}
        for kind in shares.dues:
            by_objective.setdefault(kind.objective, []).append(kind)
        gmask, mask, instruction = (
            _balanced(by_objective.get(objective, []), shares) for objective in ("gmask", "mask", "instruction")
        )
        root = _split(_split(gmask, mask, shares), instruction, shares)
        if root is None:
            raise ValueError("no source has a share")
        self._root = root
        self.kinds: tuple[Kind, ...] = tuple(shares.dues)
        """Every objective and source that has a share at some time."""
        self._paths = dict(_paths(root))

    def locate(self, sample: int) -> Draw:
        """The draw of the sample with this index, in logarithmic time of sources and ramp steps."""
        node: _Leaf | _Split = self._root
        ordinal = sample
        while isinstance(node, _Split):
            left = node.num_left(ordinal)
            goes_left = node.num_left(ordinal + 1) > left
            node, ordinal = (node.left, left) if goes_left else (node.right, ordinal - left)
        drawn = node.kind
        siblings = (kind for kind in self.kinds if (kind.section, kind.source) == (drawn.section, drawn.source))
        return Draw(drawn.objective, drawn.source, sum(self.count(kind, sample) for kind in siblings))

    def count(self, kind: Kind, samples: int) -> int:
        """How many of the first ``samples`` are of this kind."""
        for split, is_left in self._paths[kind]:
            left = split.num_left(samples)
            samples = left if is_left else samples - left
        return samples


@dataclass(frozen=True)
class _Leaf:
    kind: Kind
    dues: Sequence[int]


class _Split:
    """A choice between two sides for each of its draws."""

    def __init__(self, left: "_Leaf | _Split", right: "_Leaf | _Split", knots: Sequence[int]) -> None:
        self.left, self.right = left, right
        self.dues: Sequence[int] = [one + other for one, other in zip(left.dues, right.dues, strict=True)]
        # Where this node is due nothing it draws nothing; without those stretches its draws are one unbroken count.
        self._stretches = [
            stretch
            for stretch in zip(_totals(self.dues, knots), self.dues, _totals(left.dues, knots), left.dues, strict=True)
            if stretch[1]
        ]
        self._starts = [total for total, *_ in self._stretches]

    def num_left(self, draws: int) -> int:
        """How many of the first ``draws`` go left: what the left side is due by then, rounded.

        Inside a stretch the left side is due a constant part of every draw, so the number grows by 0 or 1, exactly.
        """
        total, due, left_total, left_due = self._stretches[bisect_right(self._starts, draws * SAMPLE) - 1]
        left = left_total * due + (draws * SAMPLE - total) * left_due  # in units of 1 / (SAMPLE * due)
        return (2 * left + SAMPLE * due) // (2 * SAMPLE * due)


def _totals(dues: Sequence[int], knots: Sequence[int]) -> Iterator[int]:
    """What has been due up to each knot."""
    lengths = (end - start for start, end in pairwise(knots))
    return accumulate((due * length for due, length in zip(dues, lengths, strict=False)), initial=0)


def _split(left: _Leaf | _Split | None, right: _Leaf | _Split | None, shares: DueShares) -> _Leaf | _Split | None:
    """A choice between two sides, or the only side there is."""
    return _Split(left, right, shares.knots) if left and right else left or right


def _balanced(kinds: Sequence[Kind], shares: DueShares) -> _Leaf | _Split | None:
    """A tree of choices that cuts the kinds, largest first, into halves as even as can be; None without kinds."""
    if len(kinds) <= 1:
        return _Leaf(kinds[0], shares.dues[kinds[0]]) if kinds else None
    falling = sorted(kinds, key=lambda kind: -sum(shares.dues[kind]))
    sums = list(accumulate(sum(shares.dues[kind]) for kind in falling))
    cut = min(range(1, len(falling)), key=lambda cut: abs(sums[-1] - 2 * sums[cut - 1]))
    return _split(_balanced(falling[:cut], shares), _balanced(falling[cut:], shares), shares)


def _paths(
    node: _Leaf | _Split, above: tuple[tuple[_Split, bool], ...] = ()
) -> Iterator[tuple[Kind, tuple[tuple[_Split, bool], ...]]]:
    """Each kind with the choices that lead to it, and whether it lies on their left side."""
    if isinstance(node, _Leaf):
        yield node.kind, above
    else:
        yield from _paths(node.left, (*above, (node, True)))
        yield from _paths(node.right, (*above, (node, False)))
