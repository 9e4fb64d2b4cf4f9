"""Which documents are the same as an earlier one, found in bounded memory however many there are."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm130b.data.arrays import BoolArray

_ENTRY = np.dtype([("content", "<u8", 2), ("number", "<u8")])
_BUCKET_ENTRIES = 1 << 20
"""24 MiB, and a few times that while they are sorted."""
_RANGE_DOCUMENTS = 1 << 22


class Duplicates:
    """The documents whose content an earlier one has.

    Contents are spread over files by their first bits, so that equal ones meet; each file fits into memory. What was
    found is spread over files again, by the documents' numbers, and read as these come by.
    """

    def __init__(self, contents: Iterable[NDArray[np.uint64]], *, num_documents: int, folder: Path) -> None:
        """``contents`` are the hashes (uint64 [any number, 2]) of all documents in their order; ``folder`` is empty."""
        self._folder = folder
        self._range: tuple[int, BoolArray] | None = None
        num_buckets = np.uint64(num_documents // _BUCKET_ENTRIES + 1)
        number = 0
        for content in contents:
            entries = np.empty(len(content), _ENTRY)
            entries["content"] = content
            entries["number"] = np.arange(number, number + len(content))
            _spread(entries, entries["content"][:, 0] % num_buckets, folder, "bucket")
            number += len(content)
        for bucket in folder.glob("bucket-*"):
            found = _later_ones(np.fromfile(bucket, _ENTRY))
            _spread(found, found // np.uint64(_RANGE_DOCUMENTS), folder, "range")
            bucket.unlink()

    def among(self, first: int, length: int) -> BoolArray:
        """Which of the documents ``first .. first + length`` are duplicates; calls with rising numbers are fast."""
        found = np.zeros(length, np.bool_)
        position = first
        while position < first + length:
            number, offset = divmod(position, _RANGE_DOCUMENTS)
            stop = min(first + length, (number + 1) * _RANGE_DOCUMENTS)
            found[position - first : stop - first] = self._marked(number)[offset : offset + stop - position]
            position = stop
        return found

    def _marked(self, number: int) -> BoolArray:
        """Of the documents of one range."""
        if self._range is None or self._range[0] != number:
            marked = np.zeros(_RANGE_DOCUMENTS, np.bool_)
            file = self._folder / f"range-{number}"
            if file.exists():
                marked[np.fromfile(file, np.uint64) % np.uint64(_RANGE_DOCUMENTS)] = True
            self._range = number, marked
        return self._range[1]


def _later_ones(entries: NDArray[np.void]) -> NDArray[np.uint64]:
    """Numbers of the entries whose content one with a smaller number has."""
    content, number = entries["content"], entries["number"]
    order = np.lexsort((number, content[:, 1], content[:, 0]))
    is_same = (content[order[1:]] == content[order[:-1]]).all(axis=1)
    later: NDArray[np.uint64] = number[order[1:][is_same]]
    return later


def _spread(values: NDArray[np.void] | NDArray[np.uint64], keys: NDArray[np.uint64], folder: Path, name: str) -> None:
    """Append each value to the file of its key."""
    order = np.argsort(keys, kind="stable")
    values, keys = values[order], keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] + np.uint64(1)))
    for start, part in zip(starts, np.split(values, starts[1:]) if len(values) else (), strict=True):
        with (folder / f"{name}-{keys[start]}").open("ab") as stream:
            part.tofile(stream)
