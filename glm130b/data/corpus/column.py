"""Numbers in a file, read and searched where they lie.

System calls instead of a memory map: a map keeps resident what it has once touched, and current kernels map 2 MiB
around each page, so that searching an index of 2 GB at random places soon holds 800 MB of it (measured). A read also
reports a failing disk as an error, where a map ends the process with a signal.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAF_ENTRIES = 2048
_CACHED_LEVELS = 15


class Column:
    """``count`` numbers of one dtype, from byte ``offset`` on, of a file that its owner keeps open."""

    def __init__(self, path: Path, descriptor: int, *, dtype: np.dtype[Any], offset: int, count: int) -> None:
        self.dtype, self.count = dtype, count
        self._path, self._descriptor, self._offset = path, descriptor, offset
        self._upper: dict[int, int] = {}
        """Values that searches look at first, by place: those of the upper levels, at most 2^15."""

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """The numbers ``first .. stop``. Raises OSError if the file became shorter."""
        numbers = np.empty(stop - first, self.dtype)
        offset = self._offset + first * self.dtype.itemsize
        if os.preadv(self._descriptor, [numbers.data], offset) != numbers.nbytes:
            raise OSError(f"{self._path}: has no {numbers.nbytes} bytes from byte {offset} on")
        return numbers

    def search(self, value: int) -> int:
        """The first place whose number is not below ``value``; the numbers must rise. ``count`` if there is none."""
        low, high, level = 0, self.count, 0
        while high - low > _LEAF_ENTRIES:
            middle = (low + high) // 2
            if (number := self._upper.get(middle)) is None:
                number = int(self.read(middle, middle + 1)[0])
                if level < _CACHED_LEVELS:
                    self._upper[middle] = number
            low, high = (middle + 1, high) if number < value else (low, middle)
            level += 1
        return low + int(self.read(low, high).searchsorted(value))
