"""A run whose tokenizer and corpus are there, and an environment that preflight may change."""

import json
import os
from pathlib import Path

import pytest

from glm130b.cli import main
from tests.unit.data.text_files import PIECES, docstrings, write_jsonl

ROOT = Path(__file__).parents[3]

A100 = """\
0, NVIDIA A100-SXM4-80GB, 535.183.01, Enabled, 81920, 81038, 34, 210, 1410, 400.00, 0, 0, 0x0000000000000001
1, NVIDIA A100-SXM4-80GB, 535.183.01, Enabled, 81920, 81038, 36, 1155, 1410, 400.00, 0, 2, 0x0000000000000024
"""
"""What `nvidia-smi` says of two GPUs; the second has a cap on its power and is hot."""


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


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of `nvidia-smi`; the test writes it."""
    program = tmp_path / "nvidia-smi"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return program
