"""A corpus of two files, whose documents are known."""

import json
from pathlib import Path

import pytest

from glm130b.cli import main
from tests.unit.data.text_files import PIECES, docstrings, write_jsonl

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="package")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """``samples CONFIG OVERRIDES``: a run of 30 steps of 8 rows on text ``a.jsonl`` and pairs ``b.jsonl``."""
    folder = tmp_path_factory.mktemp("provenance")
    texts = write_jsonl(folder / "a.jsonl", [{"text": text} for _, text in docstrings()])
    pairs = [{"inputs": f"What is {name}?", "targets": f"A function, {name}."} for name, _ in docstrings()]
    questions = write_jsonl(folder / "b.jsonl", pairs)
    model = str(folder / "tokenizer.model")
    assert main(["tokenizer", "train", str(texts), "--output", model, "--pieces", str(PIECES)]) == 0
    for name, file in (("text", texts), ("pairs", questions)):
        kind = ["--instructions"] if name == "pairs" else []
        assert main(["prepare", *kind, "--tokenizer", model, "--output", str(folder / name), str(file)]) == 0
    overrides = {
        "folder": str(folder / "runs"),
        "data.tokenizer": model,
        "data.text": {"text": {"path": str(folder / "text"), "weight": 1.0}},
        "data.instructions": {"pairs": {"path": str(folder / "pairs"), "weight": 1.0}},
        "objective.smask_share": 0.2,
        "objective.instruction_share": 0.2,
        "batch.ramp": None,
        "train_samples": 240,
    }
    config = str(ROOT / "configs" / "tiny.yaml")
    return ["samples", config, *(f"{key}={json.dumps(value)}" for key, value in overrides.items())]
