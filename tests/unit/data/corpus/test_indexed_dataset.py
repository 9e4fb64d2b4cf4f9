"""The reader: it reads what Megatron-core wrote, and names what is wrong with what it cannot read."""

import errno
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from glm130b.config.errors import FileSystemGone, UserError
from glm130b.data.corpus import indexed_dataset as module
from glm130b.data.corpus.indexed_dataset import HEADER, IndexedDataset

DOCUMENTS = [[[1, 2, 3], [4]], [[5]], [], [[], [6, 7]], []]
"""With empty documents and an empty sequence, as Megatron-core's builder lets one write."""
STARTS = [0, 4, 5, 5, 7, 7]


def build(prefix: Path, documents: list[list[list[int]]], dtype: Any = np.int32, **options: Any) -> Path:
    """A dataset written by Megatron-core."""
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype, **options)
    for document in documents:
        for sequence in document:
            builder.add_item(torch.tensor(sequence, dtype=torch.int64))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")
    return prefix


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint16])
def test_what_megatron_wrote_is_read(tmp_path: Path, dtype: Any) -> None:
    dataset = IndexedDataset(build(tmp_path / "m", DOCUMENTS, dtype))
    assert dataset.dtype == dtype
    assert (dataset.num_sequences, dataset.num_documents, dataset.num_tokens) == (5, 5, 7)
    assert dataset.tokens(0, 7).tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert dataset.tokens(2, 3).dtype == dtype
    assert dataset.lengths(0, 5).tolist() == [3, 1, 1, 0, 2]
    assert dataset.document_indices(0, 6).tolist() == [0, 2, 3, 3, 5, 5]
    assert (dataset.pointers(0, 5) // dtype().itemsize).tolist() == [0, 3, 4, 5, 5]


def test_documents_are_found_by_token_and_tokens_by_document(tmp_path: Path) -> None:
    dataset = IndexedDataset(build(tmp_path / "m", DOCUMENTS))
    for first in range(7):
        for stop in range(first, 7):
            assert dataset.document_starts(first, stop).tolist() == STARTS[first:stop]
    for start in range(8):
        for stop in range(start, 9):
            first, starts = dataset.documents_from(start, stop)
            assert first == next((document for document in range(5) if STARTS[document] >= start), 5)
            assert starts.tolist() == [begin for begin in STARTS[:5] if start <= begin < stop]


def test_documents_of_unlike_numbers_of_sequences_are_found(tmp_path: Path) -> None:
    crowded: list[list[list[int]]] = [[[1], [2], [3], [4]], [[5]], []]
    for name, documents in (("first", crowded), ("last", crowded[::-1])):
        dataset = IndexedDataset(build(tmp_path / name, documents))
        begins = dataset.document_starts(0, 3).tolist()
        for token in range(6):
            assert dataset.documents_from(token, 6)[0] == sum(begin < token for begin in begins)


def test_an_empty_dataset_is_read(tmp_path: Path) -> None:
    dataset = IndexedDataset(build(tmp_path / "m", []))
    assert (dataset.num_documents, dataset.num_tokens, dataset.documents_from(0, 1)[0]) == (0, 0, 0)
    assert dataset.document_starts(0, 1).tolist() == [0]


def test_pickled_it_is_opened_again(tmp_path: Path) -> None:
    dataset = IndexedDataset(build(tmp_path / "m", DOCUMENTS))
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 500
    assert pickle.loads(pickled).tokens(0, 7).tolist() == dataset.tokens(0, 7).tolist()


def test_portions_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DOCUMENTS_AHEAD", 1)
    test_documents_are_found_by_token_and_tokens_by_document(tmp_path)


def test_a_dataset_that_became_shorter_is_an_error_not_a_crash(tmp_path: Path) -> None:
    dataset = IndexedDataset(build(tmp_path / "m", DOCUMENTS))
    dataset.bin.write_bytes(dataset.bin.read_bytes()[:8])
    with pytest.raises(OSError, match=r"m\.bin: has no 12 bytes from byte 4 on"):
        dataset.tokens(1, 3)


def _with_header(idx: Path, **fields: int) -> None:
    names = ("magic", "version", "code", "sequences", "documents")
    values = dict(zip(names, HEADER.unpack(idx.read_bytes()[: HEADER.size]), strict=True)) | fields
    idx.write_bytes(HEADER.pack(*values.values()) + idx.read_bytes()[HEADER.size :])


DAMAGES = {
    r"m\.bin: 27 bytes disagree with m\.idx": lambda m: _cut(m, ".bin", 1),
    r"m\.bin: 29 bytes disagree with m\.idx": lambda m: _append(m, ".bin", b"x"),
    r"m\.idx: 141 bytes instead of the 142 ": lambda m: _cut(m, ".idx", 1),
    r"m\.idx: 143 bytes instead of the 142 ": lambda m: _append(m, ".idx", b"x"),
    r"m\.idx: is multimodal": lambda m: _append(m, ".idx", b"\0" * 5),
    r"m\.idx: is no index of Megatron": lambda m: _write(m, ".idx", 0, b"NOTANINDEX"),
    r"x?m\.idx: is no index": lambda m: Path(f"{m}.idx").write_bytes(b"MMIDIDX"),
    r"m\.idx: is of version 2, not 1": lambda m: _with_header(Path(f"{m}.idx"), version=2),
    r"m\.idx: dtype code 7 is no integer": lambda m: _with_header(Path(f"{m}.idx"), code=7),
    r"m\.idx: has no list of documents": lambda m: _with_header(Path(f"{m}.idx"), documents=0),
    r"m\.idx: cannot be read \(No such file": lambda m: Path(f"{m}.idx").unlink(),
    r"m\.bin: cannot be read \(No such file": lambda m: Path(f"{m}.bin").unlink(),
    r"m\.bin: 28 bytes disagree": lambda m: _write(m, ".idx", HEADER.size + 20, struct.pack("<q", 4)),
    r"m\.bin: \d+ bytes disagree with": lambda m: _write(m, ".idx", -8, struct.pack("<q", 4)),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damage_is_named_at_open(tmp_path: Path, message: str) -> None:
    prefix = build(tmp_path / "m", DOCUMENTS)
    DAMAGES[message](prefix)
    with pytest.raises(UserError, match=message) as raised:
        IndexedDataset(prefix)
    assert len(raised.value.problems) == 1
    assert "; " in raised.value.problems[0]  # and a mend


def test_a_real_multimodal_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is multimodal"):
        IndexedDataset(build(tmp_path / "m", [[[1], [2]]], multimodal=True))


def _cut(prefix: Path, suffix: str, num_bytes: int) -> None:
    file = Path(f"{prefix}{suffix}")
    file.write_bytes(file.read_bytes()[:-num_bytes])


def _append(prefix: Path, suffix: str, data: bytes) -> None:
    with Path(f"{prefix}{suffix}").open("ab") as stream:
        stream.write(data)


def _write(prefix: Path, suffix: str, offset: int, data: bytes) -> None:
    file = Path(f"{prefix}{suffix}")
    contents = bytearray(file.read_bytes())
    offset %= len(contents)
    contents[offset : offset + len(data)] = data
    file.write_bytes(contents)


def test_a_file_system_that_is_gone_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: Path, _: int) -> int:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    build(tmp_path / "m", DOCUMENTS)
    monkeypatch.setattr(module.os, "open", gone)
    with pytest.raises(
        FileSystemGone, match=r"m\.idx: cannot be read \(Stale file handle\); bring its file system back"
    ):
        IndexedDataset(tmp_path / "m")
