"""Merging: duplicates, caps and weights in a real corpus, by hand."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from glm130b.data.corpus.corpus import Corpus
from glm130b.data.preparation import shards
from glm130b.data.preparation.inputs import Dataset
from glm130b.data.preparation.rendering import PlainPairs
from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.unit.data.preparation.requests import contents, prepared, request, texts
from tests.unit.data.text_files import write_jsonl


def test_the_first_of_equal_texts_stays_across_shards_and_files(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = [[f"text {i % 70}" for i in range(start, start + 100)] for start in (0, 35)]
    files = [write_jsonl(tmp_path / f"{i}.jsonl", [{"text": text} for text in part]) for i, part in enumerate(rows)]
    manifest = prepared(request(folder, files, drop_duplicates=True), tmp_path / "out", num_workers=2)
    assert manifest
    assert manifest.duplicates == 130
    assert [counts.documents for counts in manifest.sources] == [70, 0]
    found = texts(tmp_path / "out", "train", tokenizer) + texts(tmp_path / "out", "validation", tokenizer)
    assert Counter(found) == Counter({f"text {i}": 1 for i in range(70)})


def test_pairs_are_equal_only_with_equal_answers(folder: Path, tmp_path: Path) -> None:
    rows = [{"inputs": "a question", "targets": f"answer {i % 3}"} for i in range(9)]
    rows += [{"inputs": "a questiona", "targets": "nswer 0"}]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    manifest = prepared(request(folder, [file], renderer=PlainPairs(), drop_duplicates=True), tmp_path / "out")
    assert manifest
    assert manifest.duplicates == 6


@pytest.fixture
def many(tmp_path: Path) -> list[Path]:
    return [
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": f"{name} {i}"} for i in range(120)]) for name in ("a", "b")
    ]


def test_each_dataset_has_its_cap_and_weight(
    folder: Path, tmp_path: Path, many: list[Path], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(folder, many)
    first, second = (Dataset(name=file.stem, files=(file,)) for file in many)
    asked = dataclasses.replace(
        asked,
        datasets=(dataclasses.replace(first, cap=50), dataclasses.replace(second, cap=40, weight=2.5)),
    )
    manifest = prepared(asked, tmp_path / "out")
    assert manifest
    assert manifest.capped == 70 + 80
    found = Counter(texts(tmp_path / "out", "train", tokenizer) + texts(tmp_path / "out", "validation", tokenizer))
    assert [count for text, count in found.items() if text.startswith("a")] == [1] * 50
    copies = [count for text, count in found.items() if text.startswith("b")]
    assert len(copies) == 40
    assert set(copies) == {2, 3}
    assert [counts.documents for counts in manifest.sources] == [50, sum(copies)]
    held_out = set(texts(tmp_path / "out", "validation", tokenizer))
    assert held_out
    assert not held_out & set(texts(tmp_path / "out", "train", tokenizer))
    monkeypatch.setattr(shards, "_BLOCK_TOKENS", 20)
    monkeypatch.setattr(shards, "_BLOCK_DOCUMENTS", 7)
    prepared(asked, tmp_path / "blocks")
    assert contents(tmp_path / "blocks") == contents(tmp_path / "out")


def test_a_cap_counts_after_duplicates(folder: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"text": f"text {i % 30}"} for i in range(300)]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    manifest = prepared(request(folder, [file], cap=25, drop_duplicates=True, validation_share=0.0), tmp_path / "out")
    assert manifest
    assert (manifest.duplicates, manifest.capped) == (270, 5)
    assert len(set(texts(tmp_path / "out", "train", tokenizer))) == 25


def test_a_file_of_two_datasets_is_counted_in_both(folder: Path, tmp_path: Path, many: list[Path]) -> None:
    asked = request(folder, many)
    twice = tuple(Dataset(name=name, files=(many[0],)) for name in ("one", "two"))
    manifest = prepared(dataclasses.replace(asked, datasets=twice), tmp_path / "out")
    assert manifest
    assert [counts.documents for counts in manifest.sources] == [120, 120]


def test_origins_of_copies_are_theirs(folder: Path, tmp_path: Path, many: list[Path], tokenizer: Tokenizer) -> None:
    prepared(request(folder, many[:1], weight=2.0, validation_share=0.0), tmp_path / "out")
    corpus = Corpus(tmp_path / "out", split="train", kind="text", tokenizer=tokenizer.fingerprint)
    lines = [document.line for document in corpus.documents(0, corpus.num_tokens)]
    assert lines == [line for line in range(1, 121) for _ in range(2)]
