"""Files of documents: a whole corpus comes of them, or none and sentences about what to mend."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from glm130b.cli import main
from tests.fuzz.examples import command, contents, numbers, search
from tests.fuzz.trees import TREES, damaged
from tests.unit.data.text_files import docstrings, write_jsonl

GOOD = b'{"text": "some words of a text"}\n{"inputs": "a question", "targets": "an answer", "text": "both"}\n' * 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    text = write_jsonl(folder / "text.jsonl", [{"text": text} for _, text in docstrings()])
    assert main(["tokenizer", "train", str(text), "--output", str(folder / "tokenizer.model"), "--pieces", "400"]) == 0
    return folder / "tokenizer.model"


def prepares(tokenizer: Path, folder: Path, name: str) -> Callable[[tuple[bytes, bool, str]], None]:
    def check(case: tuple[bytes, bool, str]) -> None:
        data, is_instructions, reject_share = case
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / name).write_bytes(data)
        words = ["prepare", str(folder / name), "--tokenizer", str(tokenizer), "--output", str(folder / "corpus")]
        words += ["--workers", "1", "--reject-share", reject_share, *["--instructions"] * is_instructions]
        status = command(words)
        assert (folder / name).read_bytes() == data
        assert (folder / "corpus").exists() == (status == 0)
        if status == 0:
            assert command(["verify", str(folder / "corpus")]) == 0
            before = contents(folder)
            assert command(words) == 0
            assert contents(folder) == before

    return check


def cases(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[bytes, bool, str]]:
    return st.tuples(data, st.booleans(), st.sampled_from(("0", "0.99")))


@numbers(40, 500)
def test_json_lines(examples: int, tokenizer: Path, tmp_path: Path) -> None:
    values = st.text(max_size=20) | TREES
    records = st.fixed_dictionaries({}, optional={"text": values, "inputs": values, "targets": values}) | TREES
    lines = st.lists(records.map(json.dumps) | st.text(max_size=8), max_size=5).map("\n".join)
    texts = lines.map(lambda it: it.encode(errors="surrogatepass")) | st.binary(max_size=60) | damaged(GOOD)
    search(prepares(tokenizer, tmp_path / "work", "text.jsonl"), cases(texts), examples=examples)


@pytest.mark.parametrize(
    ("name", "whole"), [("t.jsonl.gz", gzip.compress(GOOD, mtime=0)), ("t.json", b'[{"text": "a"}, 1]')]
)
@numbers(20, 250)
def test_other_formats(examples: int, name: str, whole: bytes, tokenizer: Path, tmp_path: Path) -> None:
    search(prepares(tokenizer, tmp_path / "work", name), cases(damaged(whole)), examples=examples)


@pytest.mark.parametrize("data", [b'{"text": ' + b"[" * 100_000, b'{"text": ' + b"9" * 10_000 + b"}", b"[" * 100_000])
@pytest.mark.parametrize("name", ["text.jsonl", "text.json"])
def test_json_that_is_deep_or_huge(data: bytes, name: str, tokenizer: Path, tmp_path: Path) -> None:
    search(prepares(tokenizer, tmp_path / "work", name), st.just((data, False, "0.5")), examples=1)
