"""Reading corpora: any stretch of the stream, its documents, pairs, and refusal of what does not fit together."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm130b.config.errors import UserError
from glm130b.data.corpus.corpus import Corpus, Document
from glm130b.data.corpus.manifest import Manifest, Split
from glm130b.data.corpus.origins import text_hash
from tests.unit.data.corpus.prepared import TOKENIZER, random_texts, texts, write_corpus
from tests.unit.data.corpus.test_indexed_dataset import build

DOCUMENTS = [[1, 2, 3, 9], [4, 9], [5, 6, 7, 8, 9], [9]]
STREAM = [token for document in DOCUMENTS for token in document]


def open_text(path: Path, split: Split = "train", **options: Any) -> Corpus:
    return Corpus(path, split=split, kind="text", tokenizer=TOKENIZER, **options)


@pytest.mark.parametrize("vocab_size", [100, 150_528])
def test_every_stretch_of_the_stream_is_read_across_documents(tmp_path: Path, vocab_size: int) -> None:
    corpus = open_text(write_corpus(tmp_path / "c", texts(*DOCUMENTS), vocab_size=vocab_size))
    assert corpus.num_tokens == len(STREAM)
    starts = np.cumsum([0, *map(len, DOCUMENTS)]).tolist()
    for start in range(len(STREAM) + 1):
        for length in range(len(STREAM) - start + 1):
            tokens = corpus.read(start, length)
            assert tokens.dtype == np.int64
            assert tokens.tolist() == STREAM[start : start + length]
            inside = corpus.document_starts(start, length)
            assert inside.dtype == np.int64
            assert inside.tolist() == [begin for begin in starts if start < begin < start + length]
            touched = {
                index
                for index in range(4)
                if set(range(*starts[index : index + 2])) & set(range(start, start + length))
            }
            assert [document.index for document in corpus.documents(start, length)] == sorted(touched)


def test_nothing_wraps_around(tmp_path: Path) -> None:
    corpus = open_text(write_corpus(tmp_path / "c", texts([1, 2, 3])))
    for start, length in ((-1, 1), (0, 4), (3, 1), (1, -1)):
        for ask in (corpus.read, corpus.document_starts, corpus.documents):
            with pytest.raises(IndexError):
                ask(start, length)


def test_large_ids_take_four_bytes_a_token(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "c", texts([149_999, 7]), vocab_size=150_528)
    assert (folder / "train.bin").stat().st_size == 8
    assert open_text(folder).read(0, 2).tolist() == [149_999, 7]


def test_documents_know_where_they_came_from(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "c", texts([1, 9], [2, 3, 9]), texts([4, 9], [5, 9]))
    held_out = open_text(folder, "validation")
    assert held_out.documents(1, 2) == [
        Document(index=0, start=0, length=2, file="a.jsonl", line=3, text_hash=text_hash("2").hex()),
        Document(index=1, start=2, length=2, file="a.jsonl", line=4, text_hash=text_hash("3").hex()),
    ]
    train = open_text(folder)
    assert list(train.find(text_hash("1").hex())) == [Document(1, 2, 3, "a.jsonl", 2, text_hash("1").hex())]
    assert list(train.find(text_hash("3").hex())) == []


def test_pairs(tmp_path: Path) -> None:
    pairs = [[[1, 2, 3], [4]], [[5], [6, 7]]]
    folder = write_corpus(tmp_path / "c", pairs, kind="instructions")
    corpus = Corpus(folder, split="train", kind="instructions", tokenizer=TOKENIZER)
    assert corpus.num_pairs == 2
    assert [[part.tolist() for part in corpus.pair(i)] for i in range(2)] == pairs
    assert [corpus.pair_start(i) for i in range(2)] == [0, 4]
    assert [document.line for document in corpus.documents(corpus.pair_start(1), 1)] == [2]
    prompts, answers = corpus.pair_lengths()
    assert (prompts.tolist(), answers.tolist()) == ([3, 1], [1, 2])
    with pytest.raises(IndexError):
        corpus.pair(2)


def test_a_worker_gets_the_same_corpus(tmp_path: Path) -> None:
    for corpus in (
        open_text(write_corpus(tmp_path / "c", random_texts(50))),
        open_text(build(tmp_path / "m", random_texts(50)), "validation", held_out_share=0.2, vocab_size=100),
    ):
        pickled = pickle.dumps(corpus)
        assert len(pickled) < 2000
        copy = pickle.loads(pickled)
        assert copy.read(0, copy.num_tokens).tolist() == corpus.read(0, corpus.num_tokens).tolist()
        assert copy.documents(0, copy.num_tokens) == corpus.documents(0, corpus.num_tokens)


class TestMegatronDatasets:
    @pytest.mark.parametrize(("share", "num_held_out"), [(0.2, 2), (0.25, 2), (0.01, 1), (0.9, 9)])
    def test_the_last_documents_are_held_out(self, tmp_path: Path, share: float, num_held_out: int) -> None:
        documents = random_texts(10)
        build(tmp_path / "m", documents)
        streams = []
        for split, part in (("train", documents[:-num_held_out]), ("validation", documents[-num_held_out:])):
            corpus = open_text(tmp_path / "m", split, held_out_share=share)  # type: ignore[arg-type]
            expected = [token for document in part for token in document[0]]
            assert corpus.read(0, corpus.num_tokens).tolist() == expected
            starts = np.cumsum([len(document[0]) for document in part])[:-1].tolist()
            assert corpus.document_starts(0, corpus.num_tokens).tolist() == starts
            found = corpus.documents(0, corpus.num_tokens)
            assert [document.start for document in found] == [0, *starts]
            streams.append([document.index for document in found])
            assert {(document.file, document.line, document.text_hash) for document in found} == {(None, None, None)}
        assert streams[0] + streams[1] == list(range(10))

    def test_boundaries_need_no_eod_and_pass_over_empty_documents(self, tmp_path: Path) -> None:
        documents = [[], [[1], [2]], [[]], [], [[3]], [[]], [[4, 5]]]
        corpus = open_text(build(tmp_path / "m", documents))
        assert corpus.read(0, 3).tolist() == [1, 2, 3]
        assert corpus.document_starts(0, 3).tolist() == [2]
        assert [document.index for document in corpus.documents(0, 3)] == [1, 4]
        assert [document.index for document in corpus.documents(2, 1)] == [4]
        assert corpus.documents(2, 0) == []

    def test_pairs_of_both_sides(self, tmp_path: Path) -> None:
        build(tmp_path / "m", [[[1], [2]], [[3, 4], [5]], [[6], [7, 8]]])
        corpus = Corpus(tmp_path / "m", split="validation", kind="instructions", tokenizer=TOKENIZER)
        assert [part.tolist() for part in corpus.pair(0)] == [[6], [7, 8]]
        assert (corpus.num_pairs, corpus.pair_start(0), *corpus.pair_lengths()) == (1, 0, [1], [2])

    @pytest.mark.parametrize(("bad", "dtype"), [(100, np.int32), (-1, np.int32), (60_000, np.uint16)])
    def test_a_strange_id_is_named_with_its_place(self, tmp_path: Path, bad: int, dtype: Any) -> None:
        build(tmp_path / "m", texts([1, 2], [3, bad], [5]), dtype)
        corpus = open_text(tmp_path / "m", vocab_size=100)
        assert corpus.read(0, 3).tolist() == [1, 2, 3]
        with pytest.raises(UserError, match=rf"m\.bin: token 3 is id {bad}, but the tokenizer has 100 ids; "):
            corpus.read(2, 2)

    def test_what_cannot_be_split_or_paired_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="1 documents are too few"):
            open_text(build(tmp_path / "one", texts([1])))
        with pytest.raises(UserError, match="2 sequences in 2 documents are no pairs"):
            Corpus(build(tmp_path / "two", texts([1], [2])), split="train", kind="instructions", tokenizer=TOKENIZER)

    def test_a_missing_half_is_named(self, tmp_path: Path) -> None:
        build(tmp_path / "m", texts([1], [2]))
        (tmp_path / "m.idx").unlink()
        with pytest.raises(UserError, match=r"m\.idx: cannot be read"):
            open_text(tmp_path / "m")


def test_all_disagreements_are_reported_at_once(tmp_path: Path) -> None:
    broken = write_corpus(tmp_path / "broken", texts([1, 9]))
    (broken / "train.bin").write_bytes((broken / "train.bin").read_bytes()[:-1])
    (broken / "validation.idx").unlink()
    (broken / "train.origins").unlink()
    with pytest.raises(UserError) as raised:
        Corpus(broken, split="validation", kind="instructions", tokenizer="other")
    kind, tokenizer, files, empty = raised.value.problems
    assert kind == f"{broken}: holds text, not instructions; name it under data.text"
    assert "was prepared with another tokenizer" in tokenizer
    assert "train.bin, train.origins, validation.idx missing or not of the size" in files
    assert "has no validation documents" in empty
    assert "another --validation-share" in empty


def test_files_of_the_right_size_with_other_counts_are_refused(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "c", texts([1, 9], [2, 3, 9]))
    manifest = Manifest.read(folder)
    train = manifest.splits["train"].model_copy(update={"tokens": 6})
    manifest.model_copy(update={"splits": {**manifest.splits, "train": train}}).write(folder)
    with pytest.raises(UserError, match="its train split disagrees with its manifest"):
        open_text(folder)


def test_a_folder_without_a_manifest_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none: has no readable manifest\.json"):
        open_text(tmp_path / "none")


def test_an_index_that_contradicts_itself_is_refused_where_it_is_read(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", random_texts(20), random_texts(3))
    index = bytearray((folder / "train.idx").read_bytes())
    index[-8 * 10 : -8 * 9] = (10**6).to_bytes(8, "little")  # the first sequence of a document in the middle
    (folder / "train.idx").write_bytes(index)
    corpus = Corpus(folder, split="train", kind="text", tokenizer=TOKENIZER)
    with pytest.raises(UserError, match=r"train\.idx: is damaged, its documents do not follow each other"):
        corpus.documents(0, corpus.num_tokens)
