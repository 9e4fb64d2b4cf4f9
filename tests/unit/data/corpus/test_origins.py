"""Origins: one record for each document, found by number and by hash."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from glm130b.config.errors import UserError
from glm130b.data.corpus import origins as module
from glm130b.data.corpus.origins import RECORD, Origins, origin_records, text_hash


def write(path: Path, num_documents: int) -> Origins:
    """Every third document has the same text; lines go beyond 4 bytes."""
    records = origin_records(
        text_hashes=[text_hash("same" if index % 3 == 0 else str(index)) for index in range(num_documents)],
        lines=[index + 2**40 for index in range(num_documents)],
        files=[index % 5 for index in range(num_documents)],
    )
    path.write_bytes(records.tobytes())
    return Origins(path)


def test_records_are_read_by_number(tmp_path: Path) -> None:
    origins = write(tmp_path / "o", 10)
    assert origins.num_documents == 10
    assert (tmp_path / "o").stat().st_size == 280
    records = origins.read(4, 6)
    assert records["text_hash"].tobytes() == text_hash("4") + text_hash("5")
    assert records["line"].tolist() == [2**40 + 4, 2**40 + 5]
    assert records["file"].tolist() == [4, 0]


@pytest.mark.parametrize("block", [1, 4, 1 << 18])
def test_documents_are_found_by_hash(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_RECORDS", block)
    origins = write(tmp_path / "o", 11)
    assert list(origins.find(text_hash("same"))) == [0, 3, 6, 9]
    assert list(origins.find(text_hash("10"))) == [10]
    assert list(origins.find(text_hash("none"))) == []
    near = text_hash("10")[:15] + bytes([text_hash("10")[15] ^ 1])
    assert list(origins.find(near)) == []


def test_the_search_is_bounded_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_RECORDS", 1 << 10)
    with (tmp_path / "o").open("wb") as stream:
        stream.truncate(RECORD.itemsize << 18)
    tracemalloc.start()
    assert list(Origins(tmp_path / "o").find(text_hash("none"))) == []
    assert tracemalloc.get_traced_memory()[1] < 1 << 18  # of 7 MiB
    tracemalloc.stop()


def test_one_file_may_stand_for_all() -> None:
    records = origin_records(text_hashes=[text_hash("a")] * 3, lines=np.arange(3), files=7)
    assert records["file"].tolist() == [7, 7, 7]
    assert len(origin_records(text_hashes=[], lines=[], files=0)) == 0


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.origins: cannot be read \(No such file"):
        Origins(tmp_path / "train.origins")
