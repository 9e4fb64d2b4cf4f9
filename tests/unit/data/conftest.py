"""A small tokenizer and prepared corpora, made of Python's own text through the product's own commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glm130b.cli import main
from glm130b.config.sections import RunConfig
from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.harness.synthetic import small_config
from tests.unit.data.text_files import PIECES, docstrings, write_jsonl


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds tokenizer.model, the corpora ``text``, ``other`` and ``pairs``, and the JSON lines they were made of."""
    folder = tmp_path_factory.mktemp("corpora")
    documents = docstrings()
    text = write_jsonl(folder / "text.jsonl", [{"text": text} for _, text in documents])
    other = write_jsonl(
        folder / "other.jsonl",
        [{"text": f"第{i}句话：今天读了{name}。\n"} for i, (name, _) in enumerate(documents * 2)],
    )
    pairs = [{"inputs": f"What does {name} do?", "targets": text.split("\n")[0]} for name, text in documents]
    pairs += [{"inputs": f"The function [MASK] does: {text[:40]}", "targets": name} for name, text in documents]
    questions = write_jsonl(folder / "pairs.jsonl", pairs)
    model = folder / "tokenizer.model"
    assert main(["tokenizer", "train", str(text), str(other), "--output", str(model), "--pieces", str(PIECES)]) == 0
    for name, file in (("text", text), ("other", other), ("pairs", questions)):
        arguments = [str(file), "--tokenizer", str(model), "--output", str(folder / name), "--validation-share", "0.2"]
        assert main(["prepare", *arguments, *(["--instructions"] if name == "pairs" else [])]) == 0
    return folder


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder / "tokenizer.model")


@pytest.fixture(scope="session")
def run_config(folder: Path) -> Callable[..., RunConfig]:
    """A config on the corpora; keyword arguments update single sections."""

    def build(**sections: Any) -> RunConfig:
        data = {
            "tokenizer": str(folder / "tokenizer.model"),
            "sequence_length": 256,
            "text": {
                "text": {"path": str(folder / "text"), "weight": {"start": 0.7, "end": 0.7}},
                "other": {"path": str(folder / "other"), "weight": {"start": 0.3, "end": 0.3}},
            },
            "instructions": {"pairs": {"path": str(folder / "pairs"), "weight": {"start": 1.0, "end": 1.0}}},
        }
        sections["data"] = {**data, **sections.get("data", {})}
        sections["model"] = {"vocab_size": PIECES + 8, **sections.get("model", {})}
        return small_config(**sections)

    return build
