"""Words that several messages share. A rule's sentence has the key, its value, the rule, the mend."""

from collections.abc import Iterator, Sequence

from glm130b.config.ramp import Ramp


def multiple(key: str, value: int, divisor: int, why: str, *, only_up: bool = False) -> Iterator[str]:
    """The problem that ``value`` is not a multiple of ``divisor``, if it is none; ``why`` names the divisor.

    The mend is the multiples around it, or with ``only_up`` the one above.
    """
    if value % divisor:
        below = value - value % divisor
        mend = f"{below} or {below + divisor}" if below and not only_up else str(below + divisor)
        yield f"{key}: {value} is not a multiple of {divisor} ({why}); write for example {mend}"


def inside(key: str, ramp: Ramp, *, above_zero: bool = False) -> Iterator[str]:
    """The problem that ``ramp`` leaves the range from 0 to 1, if it does."""
    smallest, largest = ramp.bounds
    too_small = smallest < 0 or (above_zero and smallest == 0)
    if too_small or largest > 1:
        allowed = "above 0 and up to 1" if above_zero else "from 0 to 1"
        yield f"{key}: {smallest if too_small else largest:g} is not {allowed}; write for example 0.1"


def rank_spans(ranks: Sequence[int]) -> str:
    """Ranks in rising order as words.

    >>> rank_spans([3, 8, 9, 10])
    'ranks 3, 8-10'
    """
    spans: list[tuple[int, int]] = []
    for rank in ranks:
        if spans and spans[-1][1] == rank - 1:
            spans[-1] = (spans[-1][0], rank)
        else:
            spans.append((rank, rank))
    words = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in spans)
    return f"rank{'s' * (len(ranks) > 1)} {words}"
