"""One small vocabulary of every kind, made here of Python's own text."""

from collections.abc import Callable
from pathlib import Path

import pytest

from glm130b.data.tokenizers.tokenizer import Tokenizer
from glm130b.data.tokenizers.training import train
from tests.unit.data.text_files import PIECES, docstrings, write_jsonl
from tests.unit.data.tokenizers import vocabularies


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds text.jsonl in English and other.jsonl in Chinese."""
    folder = tmp_path_factory.mktemp("texts")
    documents = docstrings()
    write_jsonl(folder / "text.jsonl", [{"text": text} for _, text in documents])
    write_jsonl(
        folder / "other.jsonl",
        [{"text": f"第{i}句话：今天读了{name}。\n"} for i, (name, _) in enumerate(documents * 2)],
    )
    return folder


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(train([folder / "text.jsonl", folder / "other.jsonl"], pieces=PIECES)[0])


@pytest.fixture(scope="session")
def icetk() -> Tokenizer:
    return Tokenizer(vocabularies.icetk_like())


@pytest.fixture(scope="session")
def byte_level() -> Tokenizer:
    return Tokenizer(vocabularies.byte_level())


@pytest.fixture(scope="session", params=["bpe", "unigram", "icetk", "byte_level", "llama"])
def lossless(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    """Each kind of tokenizer that gives back every text."""
    files = [folder / "text.jsonl", folder / "other.jsonl"]
    make: dict[str, Callable[[], bytes]] = {
        "bpe": lambda: train(files, pieces=PIECES)[0],
        "unigram": lambda: train(files, pieces=PIECES, model_type="unigram")[0],
        "icetk": vocabularies.icetk_like,
        "byte_level": vocabularies.byte_level,
        "llama": vocabularies.llama_like,
    }
    return Tokenizer(make[request.param]())
