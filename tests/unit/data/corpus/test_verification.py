"""``glm130b verify``: a whole corpus passes, and every damage is named."""

import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from glm130b.cli import main
from glm130b.data.corpus import checks as module
from glm130b.data.corpus.indexed_dataset import HEADER
from glm130b.data.corpus.manifest import Manifest
from glm130b.data.corpus.verification import verify
from glm130b.data.tokenizers.tokenizer import Tokenizer
from glm130b.durable import DurableFile
from tests.unit.data.corpus.prepared import EOD, TOKENIZER, VOCAB_SIZE, counts, random_texts, texts, write_corpus
from tests.unit.data.corpus.test_indexed_dataset import DOCUMENTS, build


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "c", random_texts(60), random_texts(20, seed=1))


@pytest.fixture(params=[8, 1 << 22])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four tokens and of all."""
    monkeypatch.setattr(module, "_BLOCK_BYTES", request.param)
    monkeypatch.setattr(module, "_BLOCK_ENTRIES", max(2, request.param // 4))


def patch(file: Path, offset: int, data: bytes) -> None:
    """Overwrite bytes, counted from the end if negative."""
    contents = bytearray(file.read_bytes())
    offset %= len(contents)
    contents[offset : offset + len(data)] = data
    file.write_bytes(contents)


def reseal(folder: Path) -> None:
    """Make the manifest's checksums those of the files, so that only the other checks can find the damage."""
    manifest = Manifest.read(folder)
    splits = {}
    for split, part in manifest.splits.items():
        files = {}
        for name in part.files:
            contents = (folder / name).read_bytes()
            file = DurableFile(folder / name)
            file.write(contents)
            files[name] = file.close()
        splits[split] = part.model_copy(update={"files": files})
    manifest.model_copy(update={"splits": splits}).write(folder)


def swap(folder: Path, one: str, other: str) -> None:
    (folder / one).rename(folder / "beside")
    (folder / other).rename(folder / one)
    (folder / "beside").rename(folder / other)


@pytest.mark.usefixtures("block_bytes")
class TestPrepared:
    def test_a_whole_one_has_no_problems_and_is_read_once(self, corpus: Path) -> None:
        read: list[int] = []
        assert problems_of(corpus, advance=read.append) == []
        assert sum(read) == sum(file.stat().st_size for file in corpus.iterdir() if file.suffix != ".json")

    def test_so_have_pairs_large_ids_and_an_empty_split(self, tmp_path: Path) -> None:
        pairs = [[[1, 2, 3], [4]], [[5], [6, 7]]]
        assert problems_of(write_corpus(tmp_path / "pairs", pairs, kind="instructions")) == []
        assert problems_of(write_corpus(tmp_path / "large", texts([149_999, EOD]), vocab_size=150_528)) == []

    @pytest.mark.parametrize("split", ["train", "validation"])
    @pytest.mark.parametrize("suffix", [".bin", ".idx", ".origins"])
    def test_any_flipped_bit_is_found(self, corpus: Path, split: str, suffix: str) -> None:
        file = corpus / f"{split}{suffix}"
        for offset in (0, file.stat().st_size // 2, file.stat().st_size - 1):
            old = file.read_bytes()
            patch(file, offset, bytes([old[offset] ^ 1]))
            assert any(f"{file}: its SHA-256 is " in problem for problem in problems_of(corpus))
            file.write_bytes(old)
        assert problems_of(corpus) == []

    @pytest.mark.parametrize("suffix", [".bin", ".idx", ".origins"])
    def test_a_truncated_or_missing_file_is_named_once(self, corpus: Path, suffix: str) -> None:
        file = corpus / f"train{suffix}"
        size = file.stat().st_size
        file.write_bytes(file.read_bytes()[:-1])
        (problem,) = problems_of(corpus)
        assert problem.startswith(f"{file}: has {size - 1} bytes, the manifest says {size}; ")
        file.unlink()
        (problem,) = problems_of(corpus)
        assert problem.startswith(f"{file}: is missing; ")

    @pytest.mark.parametrize("suffix", [".bin", ".idx", ".origins"])
    def test_swapped_files_are_found(self, tmp_path: Path, suffix: str) -> None:
        folder = write_corpus(tmp_path / "c", texts([1, 2, EOD], [3, EOD]), texts([4, EOD], [5, 6, EOD]))
        swap(folder, f"train{suffix}", f"validation{suffix}")
        problems = "\n".join(problems_of(folder))
        for split in ("train", "validation"):
            assert f"{split}{suffix}: its SHA-256 is " in problems

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda c: patch(c / "train.bin", 0, struct.pack("<H", 100)), r"train.bin: token 0 is id 100, as 1 in all"),
            (lambda c: patch(c / "train.bin", -2, b"\x0a\0"), r"document 59 does not end in [eod] (id 9), as 1 in all"),
            (lambda c: patch(c / "train.idx", HEADER.size + 4 * 60 + 8, b"\x01"), "sequence 1 does not start where"),
            (lambda c: patch(c / "train.idx", HEADER.size + 4, b"\x63"), "does not start where the one before ends"),
            (lambda c: patch(c / "train.idx", -16, b"\x00"), "document 58 has not 1 sequences, as 2 in all"),
            (lambda c: patch(c / "train.origins", -4, b"\x01"), "record 59 names no line of the manifest's 1 files"),
            (lambda c: patch(c / "train.origins", 16, b"\x00"), "record 0 names no line of the manifest's 1 files"),
        ],
    )
    def test_damage_older_than_the_checksums_is_found(
        self, corpus: Path, damage: Callable[[Path], None], message: str
    ) -> None:
        damage(corpus)
        reseal(corpus)
        (problem, *_) = problems_of(corpus)
        assert message in problem

    def test_every_document_without_its_end_is_counted(self, tmp_path: Path) -> None:
        documents = [*random_texts(10), [[1, 2]], *random_texts(10, seed=2), [[3]]]
        (problem,) = problems_of(write_corpus(tmp_path / "c", documents))
        assert "document 10 does not end in [eod] (id 9), as 2 in all" in problem

    def test_counts_that_disagree_are_found(self, corpus: Path) -> None:
        manifest = Manifest.read(corpus)
        manifest.model_copy(update={"sources": (counts(81),)}).write(corpus)
        (problem,) = problems_of(corpus)
        assert "its manifest counts other documents by file than by split" in problem
        train = manifest.splits["train"].model_copy(update={"documents": 59})
        manifest.model_copy(update={"splits": {**manifest.splits, "train": train}, "sources": (counts(79),)}).write(
            corpus
        )
        problems = "\n".join(problems_of(corpus))
        assert "60 records for 59 documents" in problems
        assert "train: holds 60 documents and" in problems

    def test_all_problems_are_told_at_once(self, corpus: Path) -> None:
        (corpus / "train.origins").unlink()
        patch(corpus / "train.bin", 0, b"\xff\xff")
        patch(corpus / "validation.idx", 0, b"X")
        problems = "\n".join(problems_of(corpus, tokenizer=tokenizer(TOKENIZER, 101)))
        for expected in (
            "was prepared with another tokenizer",
            "train.origins: is missing",
            "train.bin: token 0 is id 65535",
            "train.bin: its SHA-256",
            "validation.idx: is no index of Megatron-core's IndexedDataset",
            "validation.idx: its SHA-256",
        ):
            assert expected in problems

    def test_the_tokenizer_must_be_the_one(self, corpus: Path) -> None:
        assert problems_of(corpus, tokenizer=tokenizer(TOKENIZER, VOCAB_SIZE)) == []
        (problem,) = problems_of(corpus, tokenizer=tokenizer("other", VOCAB_SIZE))
        assert "was prepared with another tokenizer (SHA-256 t.., 100 ids; not other.., 100 ids)" in problem


@pytest.mark.usefixtures("block_bytes")
class TestMegatron:
    def test_what_can_be_known_is_checked(self, tmp_path: Path) -> None:
        build(tmp_path / "m", DOCUMENTS)
        assert problems_of(tmp_path / "m") == []
        assert problems_of(tmp_path / "m", tokenizer=tokenizer("any", 8)) == []
        (problem,) = problems_of(tmp_path / "m", tokenizer=tokenizer("any", 6))
        assert "m.bin: token 5 is id 6, as 2 in all that are not 0 .. 5" in problem
        patch(tmp_path / "m.bin", 0, np.int32(-3).tobytes())
        (problem,) = problems_of(tmp_path / "m")
        assert "token 0 is id -3, as 1 in all" in problem

    def test_a_crooked_index_is_found(self, tmp_path: Path) -> None:
        build(tmp_path / "m", DOCUMENTS)
        patch(tmp_path / "m.idx", HEADER.size + 8, struct.pack("<i", -1))  # length of sequence 2
        patch(tmp_path / "m.idx", -16, struct.pack("<q", 0))  # where document 4 begins
        lengths, pointers, documents, end = problems_of(tmp_path / "m")
        assert "sequence 2 has a negative length, as 1 in all" in lengths
        assert "sequence 3 does not start where the one before ends, as 2 in all" in pointers
        assert "document 3 has a negative number of sequences, as 1 in all" in documents
        assert "its sequences end at byte 20 of the 28 of m.bin" in end

    def test_a_truncated_one_is_found(self, tmp_path: Path) -> None:
        build(tmp_path / "m", DOCUMENTS)
        (tmp_path / "m.bin").write_bytes(b"")
        (problem,) = problems_of(tmp_path / "m")
        assert "m.bin: 0 bytes disagree with m.idx" in problem


def test_the_command_says_one_line_for_each(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "m", DOCUMENTS)
    assert main(["verify", str(corpus), str(tmp_path / "m")]) == 0
    parts = Manifest.read(corpus).splits.items()
    contents = ", ".join(f"{split} {part.documents} documents {part.tokens} tokens" for split, part in parts)
    assert capsys.readouterr().out.splitlines() == [
        f"{corpus}: whole, {contents}",
        f"{tmp_path / 'm'}: whole, 5 documents 7 tokens, highest id 7",
    ]
    patch(corpus / "train.bin", 0, b"\xff\xff")
    assert main(["verify", str(corpus), str(tmp_path / "m"), str(tmp_path / "none")]) == 2
    said = capsys.readouterr()
    states = [line.split(": ", 1)[1] for line in said.out.splitlines()]
    assert states == ["damaged, problems: 2", "whole, 5 documents 7 tokens, highest id 7", "damaged, problems: 1"]
    assert len([line for line in said.err.splitlines() if line.startswith("glm130b: error: ")]) == 3
    assert "none: has no readable manifest.json" in said.err
    assert "or name a Megatron dataset by the name that its .bin and .idx share" in said.err
    assert "remove the folder and run `glm130b prepare` again" in said.err


def problems_of(path: Path, **options: Any) -> list[str]:
    return verify(path, **options).problems


def tokenizer(fingerprint: str, vocab_size: int) -> Tokenizer:
    """All that verification asks of a tokenizer."""
    stand_in: Any = SimpleNamespace(fingerprint=fingerprint, vocab_size=vocab_size)
    return cast(Tokenizer, stand_in)
