"""Corpora that were damaged on disk or written by somebody else: read as they are, or refused by name."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from glm130b.config.errors import UserError
from glm130b.data.corpus.corpus import Corpus
from glm130b.data.corpus.manifest import SPLITS, Split
from tests.fuzz.examples import command, contents, ends_well, numbers, search
from tests.fuzz.trees import damaged, mutated
from tests.unit.data.corpus.prepared import TOKENIZER, VOCAB_SIZE, random_texts, write_corpus

FILES = tuple(f"{split}.{suffix}" for split in SPLITS for suffix in ("bin", "idx", "origins"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "corpus"
    return write_corpus(folder, random_texts(40), random_texts(10, seed=1))


def read_all(path: Path, split: Split) -> None:
    """As training and ``glm130b samples`` read."""
    corpus = Corpus(path, split=split, kind="text", tokenizer=TOKENIZER, vocab_size=VOCAB_SIZE)
    for start in range(0, max(corpus.num_tokens - 64, 1), 64):
        length = min(64, corpus.num_tokens - start)
        tokens = corpus.read(start, length)
        assert len(tokens) == length
        corpus.document_starts(start, length)
        corpus.documents(start, length)
    list(corpus.find("0" * 32))


def readable_or_refused(path: Path) -> None:
    """Opened and read to its end, or refused; ``glm130b verify`` reads it, too, and neither changes it."""
    before = contents(path.parent)
    for split in SPLITS:
        ends_well(partial(read_all, path, split))
    command(["verify", str(path)])
    assert contents(path.parent) == before


def with_change(whole: Path, folder: Path) -> Callable[[tuple[str, bytes]], None]:
    def check(change: tuple[str, bytes]) -> None:
        name, data = change
        path = folder / "corpus"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(whole, path)
        (path / name).write_bytes(data)
        readable_or_refused(path)

    return check


@numbers(40, 400)
def test_damaged_files(examples: int, whole: Path, tmp_path: Path) -> None:
    """Those that the manifest's sizes let through are as bad as the disk makes them."""
    changes = st.one_of(
        [st.tuples(st.just(name), damaged((whole / name).read_bytes())) for name in (*FILES, "manifest.json")]
    )
    search(with_change(whole, tmp_path), changes, examples=examples)


@numbers(40, 300)
def test_manifests_of_others(examples: int, whole: Path, tmp_path: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text())
    changes = mutated(manifest).map(lambda tree: ("manifest.json", json.dumps(tree).encode()))
    search(with_change(whole, tmp_path), changes, examples=examples)


@numbers(40, 300)
def test_megatron_files_of_others(examples: int, whole: Path, tmp_path: Path) -> None:
    """Without a manifest, sizes are what the index says."""
    parts = {name: (whole / f"train.{name}").read_bytes() for name in ("bin", "idx")}

    def check(change: tuple[str, bytes]) -> None:
        for name, data in {**parts, change[0]: change[1]}.items():
            (tmp_path / f"bare.{name}").write_bytes(data)
        readable_or_refused(tmp_path / "bare")

    search(check, st.one_of([st.tuples(st.just(k), damaged(v)) for k, v in parts.items()]), examples=examples)


def test_a_pickle_is_no_corpus(tmp_path: Path) -> None:
    np.save(tmp_path / "bare.bin", np.array([print], dtype=object), allow_pickle=True)
    shutil.copy(tmp_path / "bare.bin.npy", tmp_path / "bare.idx")
    with pytest.raises(UserError):
        Corpus(tmp_path / "bare", split="train", kind="text", tokenizer=TOKENIZER)
