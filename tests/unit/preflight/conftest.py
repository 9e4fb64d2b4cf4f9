"""A run whose tokenizer and corpus are there, and an environment that preflight may change."""

import json
import os
from pathlib import Path

import pytest

from glm130b.cli import main
from tests.unit.data.text_files import PIECES, docstrings, write_jsonl

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="package")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``tokenizer.model`` and the corpus ``text``."""
    folder = tmp_path_factory.mktemp("preflight")
    texts = write_jsonl(folder / "text.jsonl", [{"text": text} for _, text in docstrings()])
    model = str(folder / "tokenizer.model")
    assert main(["tokenizer", "train", str(texts), "--output", model, "--pieces", str(PIECES)]) == 0
    share = ["--validation-share", "0.2"]
    assert main(["prepare", *share, "--tokenizer", model, "--output", str(folder / "text"), str(texts)]) == 0
    return folder


@pytest.fixture
def words(corpora: Path, tmp_path: Path) -> list[str]:
    """CONFIG OVERRIDES of a tiny run on the corpus, of 8 processes."""
    overrides = {
        "folder": str(tmp_path / "runs"),
        "data.tokenizer": str(corpora / "tokenizer.model"),
        "data.text": {"text": {"path": str(corpora / "text"), "weight": 1.0}},
        "data.instructions": {},
        "objective.instruction_share": 0,
    }
    return [str(ROOT / "configs" / "tiny.yaml"), *(f"{key}={json.dumps(value)}" for key, value in overrides.items())]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command sets for the libraries is forgotten after the test."""
    monkeypatch.setattr(os, "environ", {**os.environ, "DS_ACCELERATOR": "cpu"})
