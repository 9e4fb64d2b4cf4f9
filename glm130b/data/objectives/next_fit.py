"""Next-fit: items laid into bins in their order, a bin closed by the first item that does not fit it."""

from collections.abc import Iterable

import numpy as np

from glm130b.data.arrays import Int64Array


def next_fit(costs: Iterable[Int64Array], *, capacity: int) -> Int64Array:
    """The bounds of the bins: bin i holds items ``bounds[i]`` up to, but without, ``bounds[i + 1]``; int64 [bins + 1].

    ``costs`` are those of all items, in pieces of any length. An item that costs nothing opens no bin, so that what
    stands before the first bin costs nothing. Raises ValueError for an item that costs more than ``capacity``.

    >>> next_fit([np.array([2, 1, 1]), np.array([3, 2])], capacity=4).tolist()
    [0, 3, 4, 5]
    """
    bounds = [np.empty(0, np.int64)]
    num_items, used = 0, capacity  # no bin is open
    for piece in costs:
        if piece.max(initial=0) > capacity:
            raise ValueError(f"an item costs {piece.max()}, more than the {capacity} of a bin")
        ends = np.cumsum(piece)
        # For each item, the first that does not fit a bin opened with it; then only those are followed that open one.
        following = np.searchsorted(ends, ends - piece + capacity, side="right").tolist()
        item = int(np.searchsorted(ends, capacity - used, side="right"))
        openers = []
        while item < len(piece):
            openers.append(item)
            item = following[item]
        if openers:
            used = int(ends[-1] - ends[openers[-1]] + piece[openers[-1]])
        else:
            used += int(piece.sum())
        bounds.append(num_items + np.array(openers, np.int64))
        num_items += len(piece)
    return np.append(np.concatenate(bounds), num_items)
