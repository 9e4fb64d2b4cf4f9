"""Every format gives the same records, in any number of pieces."""

import gzip
import json
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from glm130b.data.reading.pieces import Reading, cut
from glm130b.data.reading.records import PieceReader
from glm130b.data.reading.rejection import Damaged, Rejection

ROWS = [{"text": f"document {i}\n" * (i % 7 + 1), "number": i} for i in range(200)]


def read(file: Path, *, reading: Reading = Reading(), piece_bytes: int = 1 << 20) -> list[tuple[int, Any]]:  # noqa: B008
    """(line of the file, record or the kind of rejection) of every record, piece by piece."""
    readers = [PieceReader(piece, reading) for piece in cut(file, reading=reading, piece_bytes=piece_bytes)]
    found = [list(reader) for reader in readers]
    first = accumulate([0, *(reader.num_lines for reader in readers)])
    return [
        (lines + record.line, record.value.kind if isinstance(record.value, Rejection) else record.value)
        for lines, records in zip(first, found, strict=False)
        for record in records
    ]


def write_lines(file: Path) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def write_gzip(file: Path) -> None:
    half = len(ROWS) // 2  # of two members, as `cat a.gz b.gz` makes it
    parts = ["".join(json.dumps(row) + "\n" for row in rows) for rows in (ROWS[:half], ROWS[half:])]
    file.write_bytes(b"".join(gzip.compress(part.encode()) for part in parts))


def write_zstd(file: Path) -> None:
    half = len(ROWS) // 2
    parts = ["".join(json.dumps(row) + "\n" for row in rows) for rows in (ROWS[:half], ROWS[half:])]
    file.write_bytes(b"".join(zstandard.compress(part.encode()) for part in parts))


def write_parquet(file: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file, row_group_size=30)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.jsonl": write_lines,
    "a.jsonl.gz": write_gzip,
    "a.json.zst": write_zstd,
    "a.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("piece_bytes", [100, 1000, 1 << 20])
def test_every_format_gives_the_same_records(tmp_path: Path, name: str, piece_bytes: int) -> None:
    WRITERS[name](tmp_path / name)
    assert read(tmp_path / name, piece_bytes=piece_bytes) == list(enumerate(ROWS, start=1))


@pytest.mark.parametrize("name", WRITERS)
def test_all_the_work_is_told(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    pieces = list(cut(tmp_path / name, reading=Reading(), piece_bytes=1000))
    assert len(pieces) == (1 if name.endswith(("gz", "zst")) else len(pieces))
    assert abs(sum(piece.work for piece in pieces) - (tmp_path / name).stat().st_size) <= len(pieces)
    for piece in pieces:
        reader = PieceReader(piece, Reading())
        done = [reader.work_done for _ in reader]
        assert done == sorted(done)
        assert 0 <= reader.work_done <= piece.work


TEXT = b"\xef\xbb\xbffirst line\nsecond line\r\n\r\n \t\n\nthird\n\xff\n\nlong " + b"x" * 50 + b"\n\nlast"


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 5, 8, 13, 50, 1000])
def test_plain_text_by_line_and_paragraph(tmp_path: Path, piece_bytes: int) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(TEXT)
    by_line = Reading(text_field="body", plain_text="line", longest_bytes=40)
    assert read(file, reading=by_line, piece_bytes=piece_bytes) == [
        (1, {"body": "first line"}),
        (2, {"body": "second line"}),
        (6, {"body": "third"}),
        (7, "invalid UTF-8"),
        (9, "too long"),
        (11, {"body": "last"}),
    ]
    by_paragraph = Reading(plain_text="paragraph", longest_bytes=40)
    assert read(file, reading=by_paragraph, piece_bytes=piece_bytes) == [
        (1, {"text": "first line\nsecond line"}),
        (6, "invalid UTF-8"),
        (9, "too long"),
        (11, {"text": "last"}),
    ]


def test_plain_text_by_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"x" * 100))
    (tmp_path / "c.txt").touch()
    reading = Reading(longest_bytes=20)
    assert read(tmp_path / "a.txt", reading=reading, piece_bytes=2) == [(1, {"text": "one\n\ntwo\n"})]
    assert read(tmp_path / "b.txt.gz", reading=reading) == [(1, "too long")]
    assert read(tmp_path / "c.txt", reading=reading) == [(1, {"text": ""})]


def test_bad_rows_of_parquet_are_named(tmp_path: Path) -> None:
    texts = pyarrow.array([b"fine", b"\xff", b"good", None], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [
        (1, {"text": "fine"}),
        (2, "invalid UTF-8"),
        (3, {"text": "good"}),
        (4, {"text": None}),
    ]


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet")
    (piece,) = cut(tmp_path / "a.parquet", reading=Reading(), piece_bytes=1 << 20)
    records = list(PieceReader(piece, Reading(), columns=("text", "absent")))
    assert records[3].value == {"text": ROWS[3]["text"]}


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.zst"])
def test_a_compressed_file_that_ends_early_is_damaged(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-5])
    with pytest.raises(Damaged, match="is damaged or incomplete"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(whole[:40] + b"nonsense" + whole[48:])
    with pytest.raises(Damaged, match="is damaged or incomplete"):
        read(tmp_path / name)


def test_parquet_that_is_none_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(Damaged, match="is no whole Parquet file"):
        list(cut(tmp_path / "a.parquet", reading=Reading(), piece_bytes=1))


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl")
    (piece,) = cut(tmp_path / "a.jsonl", reading=Reading(), piece_bytes=1 << 20)
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(Damaged, match="has changed"):
        list(PieceReader(piece, Reading()))
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(Damaged, match="cannot be read"):
        list(PieceReader(piece, Reading()))
