"""Rows of Parquet files; the one door to pyarrow."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from glm130b.data.reading.rejection import Damaged, Rejection

_BATCH_BYTES = 4 << 20
_MOST_ROWS = 1024


def group_bytes(file: Path) -> list[int]:
    """Bytes of each row group, decompressed. Raises Damaged and OSError."""
    with _opened(file) as parquet:
        return [parquet.metadata.row_group(group).total_byte_size for group in range(parquet.num_row_groups)]


def read_rows(
    file: Path, *, groups: range, columns: Sequence[str] | None
) -> Iterator[tuple[int, dict[str, Any] | Rejection]]:
    """(rows of the groups up to and with this one, the row) of each row; ``columns`` that the file lacks are left out.

    A batch of rows is in memory, not a row group. Raises Damaged and OSError.
    """
    with _opened(file) as parquet:
        known = None if columns is None else [name for name in columns if name in parquet.schema_arrow.names]
        metadata = [parquet.metadata.row_group(group) for group in groups]
        row_bytes = sum(group.total_byte_size for group in metadata) / max(1, sum(group.num_rows for group in metadata))
        batch_size = max(1, min(_MOST_ROWS, int(_BATCH_BYTES / max(row_bytes, 1))))
        number = 0
        for batch in parquet.iter_batches(batch_size, row_groups=list(groups), columns=known, use_threads=False):
            for row in _rows(batch):
                number += 1
                yield number, row


def _rows(batch: Any) -> Iterator[dict[str, Any] | Rejection]:
    try:
        yield from batch.to_pylist()
    except (
        UnicodeDecodeError
    ):  # which row it is shows one by one; none was handed out, for the batch converts as a whole
        for index in range(batch.num_rows):
            try:
                (row,) = batch.slice(index, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield Rejection("invalid UTF-8", f"byte {error.start + 1} of a text is not UTF-8")
            else:
                yield row


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        # Pages are read as they are needed, and what is read is not kept.
        with pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as parquet:
            yield parquet
    except pyarrow.ArrowException as error:
        raise Damaged(f"is no whole Parquet file ({' '.join(str(error).split())}); write it again") from None
