"""Fewer points to draw, without losing what a person looks for: no spike and no gap may go missing.

Plain functions of arrays; the x axis is the order of the values.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def extremes(values: Array, *, most: int) -> Array:
    """Indices of at most ``most`` of the finite ``values`` [n], ascending: the smallest and the largest of each of
    ``most // 2 - 1`` stretches of equal length, and the first and the last of all."""
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) <= most:
        return finite
    starts = np.linspace(0, len(finite), most // 2 - 1, endpoint=False).astype(int)
    kept = [finite[[0, -1]]]
    for stretch in np.split(finite, starts[1:]):
        kept.append(stretch[[values[stretch].argmin(), values[stretch].argmax()]])
    return np.unique(np.concatenate(kept))


def running_mean(values: Array, *, window: int) -> Array:
    """Mean of the finite values among the ``window`` around each place, fewer towards the ends: float64 [n], NaN where
    the value itself is not finite. Taken twice, so that a spike leaves no box; centred, so that nothing is drawn later
    than it was."""
    return _mean_around(_mean_around(values, reach=window // 4), reach=window // 4)


def _mean_around(values: Array, *, reach: int) -> Array:
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0), dtype=np.float64)])
    counts = np.concatenate([[0], np.cumsum(finite)])
    places = np.arange(len(values))
    room = np.minimum(places, reach)  # as far ahead as back, since a run begins steeply
    low, high = places - room, np.minimum(places + room + 1, len(values))
    with np.errstate(invalid="ignore"):
        means = (sums[high] - sums[low]) / (counts[high] - counts[low])
    return np.where(finite, means, np.nan)


def evenly(length: int, *, most: int) -> Array:
    """At most ``most`` indices of ``length`` places, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int))


def binned_maximum(values_LT: Array, *, bins: int) -> tuple[Array, Array]:
    """Largest finite value of each row in each of at most ``bins`` stretches of columns: [L, bins], NaN where there is
    none; and the index of each stretch's first column."""
    columns = values_LT.shape[1]
    starts = np.unique(np.linspace(0, columns, min(bins, columns), endpoint=False).astype(int))
    finite = np.where(np.isfinite(values_LT), values_LT, np.nan)
    return np.fmax.reduceat(finite, starts, axis=1), starts


def shares(counts_KT: Array, *, most: int) -> tuple[Array, Array]:
    """Parts that running counts had in the growth of all, over at most ``most`` stretches of records: [K, stretches],
    columns summing to 1; and the index of the record that ends each stretch. The first counts from nothing."""
    ends = evenly(counts_KT.shape[1], most=most)
    before = np.zeros((len(counts_KT), 1))
    growth = np.diff(np.nan_to_num(counts_KT[:, ends], posinf=0.0), axis=1, prepend=before).clip(min=0)
    total = growth.sum(axis=0)
    grew = total > 0
    return growth[:, grew] / total[grew], ends[grew]
