"""A shuffle without a shuffle file: a keyed bijection of range(n), computed for any index on its own."""

import math

import numpy as np
from numpy.typing import NDArray

from glm130b.data.mixing.randomness import digest

_ROUNDS = 6
_FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9
_MASK = (1 << 64) - 1


class Permutation:
    """A pseudo-random order of ``range(size)``, in constant time and memory.

    An index is a pair (row, column) of a rectangle with at least ``size`` cells; a Feistel network turns each half by
    a keyed hash of the other, which is a bijection of the rectangle. A result past ``size`` is sent through again
    until it falls inside (cycle walking), which keeps it a bijection; the rectangle has less than one row too many,
    so this is rare.

    >>> sorted(Permutation(5, 1234, "english", 0)(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, size: int, *key: int | str) -> None:
        """``size`` from 1 to 2^62; equal keys give equal orders, different keys unrelated ones."""
        self.size = size
        self._rows = math.isqrt(size - 1) + 1
        self._columns = -(-size // self._rows)
        keys = digest(*key, num_bytes=8 * _ROUNDS)
        self._keys = [keys >> (64 * number) & _MASK for number in range(_ROUNDS)]

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each index in ``range(size)`` goes; int64 of the same shape."""
        cells = self._network(indices.astype(np.uint64))
        while (outside := cells >= self.size).any():
            cells[outside] = self._network(cells[outside])
        return cells.astype(np.int64)

    def at(self, index: int) -> int:
        """Where one index goes, the same in plain integers: arrays of one number are slow."""
        rows, columns = self._rows, self._columns
        cell = self.size
        row, column = divmod(index, columns)
        while cell >= self.size:
            for number, key in enumerate(self._keys):
                if number % 2:
                    column = (column + _hash_of(row ^ key)) % columns
                else:
                    row = (row + _hash_of(column ^ key)) % rows
            cell = row * columns + column
        return cell

    def index_of(self, cell: int) -> int:
        """The index that goes to ``cell``: the network run backwards."""
        rows, columns = self._rows, self._columns
        index = self.size
        row, column = divmod(cell, columns)
        while index >= self.size:
            for number, key in reversed(list(enumerate(self._keys))):
                if number % 2:
                    column = (column - _hash_of(row ^ key)) % columns
                else:
                    row = (row - _hash_of(column ^ key)) % rows
            index = row * columns + column
        return index

    def _network(self, cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
        rows, columns = np.uint64(self._rows), np.uint64(self._columns)
        row, column = cells // columns, cells % columns
        for number, key in enumerate(self._keys):
            if number % 2:
                column = (column + _hash(row ^ np.uint64(key)) % columns) % columns
            else:
                row = (row + _hash(column ^ np.uint64(key)) % rows) % rows
        return row * columns + column


def _hash_of(value: int) -> int:
    """``_hash`` of one number."""
    value = (value ^ value >> 32) * _FIRST & _MASK
    value = (value ^ value >> 29) * _SECOND & _MASK
    return value ^ value >> 32


def _hash(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix 64 bits so that each depends on all: two rounds of multiply and fold, arithmetic modulo 2^64."""
    values = (values ^ (values >> np.uint64(32))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(29))) * np.uint64(_SECOND)
    return values ^ (values >> np.uint64(32))
