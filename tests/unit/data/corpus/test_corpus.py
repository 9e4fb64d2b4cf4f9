"""Reading corpora: any stretch of the stream, pairs, and refusal of what does not fit together."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from glm130b.config.errors import UserError
from glm130b.data.corpus import Corpus, CorpusWriter
from glm130b.data.manifest import Inputs, Manifest
from glm130b.data.tokenizer import Tokenizer

DOCUMENTS = [[1, 2, 3, 9], [4, 9], [5, 6, 7, 8, 9], [9]]


def write(folder: Path, documents: list[list[list[int]]], *, vocab_size: int = 100, kind: str = "text") -> Path:
    """A prepared folder with these documents for training and none held out."""
    folder.mkdir()
    splits = {}
    for split, part in (("train", documents), ("validation", [])):
        with CorpusWriter(folder, split=split, vocab_size=vocab_size) as writer:
            for document in part:
                writer.add(document)
        splits[split] = writer.summary()
    inputs = Inputs.model_validate({"kind": kind, "tokenizer": "t", "validation_share": 0.0, "files": ()})
    Manifest(inputs=inputs, splits=splits).write(folder)
    return folder


@pytest.mark.parametrize("vocab_size", [100, 150_528])
def test_every_stretch_of_the_stream_is_read_across_documents(tmp_path: Path, vocab_size: int) -> None:
    write(tmp_path / "c", [[document] for document in DOCUMENTS], vocab_size=vocab_size)
    corpus = Corpus(tmp_path / "c", split="train", kind="text", tokenizer="t")
    stream = [token for document in DOCUMENTS for token in document]
    assert corpus.num_tokens == len(stream)
    for start in range(len(stream) + 1):
        for length in range(len(stream) - start + 1):
            tokens = corpus.read(start, length)
            assert tokens.dtype == np.int64
            assert tokens.tolist() == stream[start : start + length]


def test_nothing_wraps_around(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path / "c", [[[1, 2, 3]]]), split="train", kind="text", tokenizer="t")
    for start, length in ((-1, 1), (0, 4), (3, 1), (1, -1)):
        with pytest.raises(IndexError):
            corpus.read(start, length)


def test_large_ids_take_four_bytes_a_token(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", [[[149_999, 7]]], vocab_size=150_528)
    assert (folder / "train.bin").stat().st_size == 8
    assert Corpus(folder, split="train", kind="text", tokenizer="t").read(0, 2).tolist() == [149_999, 7]


def test_pairs(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", [[[1, 2, 3], [4]], [[5], [6, 7]]], kind="instructions")
    corpus = Corpus(folder, split="train", kind="instructions", tokenizer="t")
    assert corpus.num_pairs == 2
    assert [[part.tolist() for part in corpus.pair(i)] for i in range(2)] == [[[1, 2, 3], [4]], [[5], [6, 7]]]
    prompts, answers = corpus.pair_lengths()
    assert (prompts.tolist(), answers.tolist()) == ([3, 1], [1, 2])


def test_all_disagreements_are_reported_at_once(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder / "text", broken)
    (broken / "train.bin").write_bytes((broken / "train.bin").read_bytes()[:-1])
    (broken / "validation.idx").unlink()
    with pytest.raises(UserError) as raised:
        Corpus(broken, split="train", kind="instructions", tokenizer="other")
    kind, tokenizer, files = raised.value.problems
    assert kind == f"{broken}: holds text, not instructions; name it under data.text"
    assert "was prepared with another tokenizer" in tokenizer
    assert "train.bin, validation.idx missing or not of the size" in files


def test_an_empty_split_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no validation documents; .* another --validation-share"):
        Corpus(write(tmp_path / "c", [[[1]]]), split="validation", kind="text", tokenizer="t")


def test_a_folder_without_or_with_a_damaged_manifest_says_so(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(UserError, match=r"none: has no readable manifest\.json"):
        Corpus(tmp_path / "none", split="train", kind="text", tokenizer=tokenizer.fingerprint)
    shutil.copytree(folder / "text", tmp_path / "c")
    for damage in ("{", "{}", '{"inputs": {}, "splits": {}}'):
        (tmp_path / "c" / "manifest.json").write_text(damage)
        with pytest.raises(UserError, match=r"manifest\.json: is damaged"):
            Corpus(tmp_path / "c", split="train", kind="text", tokenizer=tokenizer.fingerprint)
