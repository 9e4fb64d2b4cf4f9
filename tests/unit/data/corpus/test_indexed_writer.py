"""The writer: byte for byte what Megatron-core writes, in bounded memory."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
from megatron.core.datasets.indexed_dataset import IndexedDataset as MegatronDataset

from glm130b.data.corpus import indexed_writer as module
from glm130b.data.corpus.indexed_dataset import dtype_for
from glm130b.data.corpus.indexed_writer import IndexedDatasetWriter


@pytest.mark.parametrize("vocab_size", [100, 65_499, 65_500, 150_528])
@pytest.mark.parametrize("sequences_per_document", [1, 2])
@pytest.mark.parametrize("block", [3, 1 << 18])
def test_the_files_are_megatrons_to_the_byte(
    tmp_path: Path, vocab_size: int, sequences_per_document: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_SEQUENCES", block)
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 50, 20)
    tokens = rng.integers(0, vocab_size, lengths.sum())
    builder = IndexedDatasetBuilder(str(tmp_path / "m.bin"), dtype=DType.optimal_dtype(vocab_size))
    writer = IndexedDatasetWriter(
        tmp_path / "ours", vocab_size=vocab_size, sequences_per_document=sequences_per_document
    )
    ends = lengths.cumsum()
    for first in range(0, 20, sequences_per_document):
        stop = first + sequences_per_document
        builder.add_document(tokens[ends[first] - lengths[first] : ends[stop - 1]], lengths[first:stop].tolist())
    for first, stop in ((0, 2), (2, 2), (2, 14), (14, 20)):  # in other portions
        start = ends[first] - lengths[first]
        writer.add(tokens[start : start + lengths[first:stop].sum()], lengths[first:stop])
    builder.finalize(str(tmp_path / "m.idx"))
    summaries = writer.close()
    for suffix in (".bin", ".idx"):
        written = (tmp_path / f"ours{suffix}").read_bytes()
        assert written == (tmp_path / f"m{suffix}").read_bytes()
        summary = summaries[f"ours{suffix}"]
        assert (summary.bytes, summary.sha256) == (len(written), hashlib.sha256(written).hexdigest())
    assert {file.stem for file in tmp_path.iterdir()} == {"m", "ours"}  # the spool is gone


@given(documents=st.lists(st.lists(st.integers(0, 99), max_size=8), max_size=8))
def test_megatron_reads_any_documents(tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]]) -> None:
    prefix = tmp_path_factory.mktemp("any") / "ours"
    writer = IndexedDatasetWriter(prefix, vocab_size=100, sequences_per_document=1)
    for document in documents:
        writer.add(np.array(document, np.int64), np.array([len(document)]))
    writer.close()
    if any(documents):  # Megatron-core cannot map an empty file
        dataset = MegatronDataset(str(prefix))
        assert [dataset[index].tolist() for index in range(len(dataset))] == documents
        assert dataset.document_indices.tolist() == list(range(len(documents) + 1))


def test_what_does_not_fit_is_refused_and_not_written(tmp_path: Path) -> None:
    writer = IndexedDatasetWriter(tmp_path / "ours", vocab_size=10, sequences_per_document=2)
    for tokens, lengths, message in (
        ([1, 2, 3], [3], "1 sequences of 3"),
        ([1, 2, 3], [2, 2], "of 4 tokens in all, but 3"),
        ([1, 10], [1, 1], r"ids 1 \.\. 10 for a vocabulary of 10"),
        ([-1, 1], [1, 1], r"ids -1 \.\. 1 "),
        ([1, 1], [3, -1], r"sequences of -1 \.\. 3"),
    ):
        with pytest.raises(ValueError, match=message):
            writer.add(np.array(tokens), np.array(lengths))
    assert (writer.num_documents, writer.num_tokens) == (0, 0)
    assert writer.close()["ours.bin"].bytes == 0


def test_memory_does_not_grow_with_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_SEQUENCES", 1 << 12)
    tokens, lengths = np.ones(1 << 12, np.uint16), np.ones(1 << 12, np.int64)

    def peak(num_portions: int) -> int:
        tracemalloc.start()
        writer = IndexedDatasetWriter(tmp_path / "ours", vocab_size=10, sequences_per_document=1)
        for _ in range(num_portions):
            writer.add(tokens, lengths)
        writer.close()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(200) < peak(10) + (1 << 16)  # 190 times 4096 more documents, 8 bytes each would be 6 MB


def test_ids_take_as_few_bytes_as_in_megatron() -> None:
    for vocab_size in (1, 65_499, 65_500, 150_528):
        assert dtype_for(vocab_size) == np.dtype(DType.optimal_dtype(vocab_size))
