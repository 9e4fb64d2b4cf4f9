"""Tiny corpora, a tiny run on them, and what the run comes to when nothing happens to it."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from glm130b.cli import main
from tests.harness.incidents import Fault, run_job
from tests.harness.incidents_run import Run

STEPS, SAVE_EVERY, ROWS = 24, 6, 4


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and two corpora, made by the user's commands from random words."""
    folder, rng = tmp_path_factory.mktemp("corpora"), random.Random(5)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 5))) for _ in range(60)]
    tokenizer, files = str(folder / "tokenizer.model"), {name: folder / f"{name}.jsonl" for name in ("words", "others")}
    for file in files.values():
        texts = [" ".join(rng.choices(words, k=rng.randint(20, 80))) for _ in range(100)]
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    assert main(["tokenizer", "train", "--output", tokenizer, "--pieces", "300", *map(str, files.values())]) == 0
    options = ["--tokenizer", tokenizer, "--validation-share", "0.1", "--workers", "1"]
    for name, file in files.items():
        assert main(["prepare", *options, "--output", str(folder / name), str(file)]) == 0
    return folder


@pytest.fixture(scope="session")
def config(corpora: Path) -> Path:
    """The file that every run of these tests is described by: two ranks, 24 steps, a checkpoint every 6."""
    tree = {
        "name": "run",
        "train_samples": STEPS * ROWS,
        "model": {
            "num_layers": 2,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "ffn_hidden_size": 48,
            "vocab_size": 320,
            "hidden_dropout": 0.1,
            "embedding_gradient_shrink": {"alpha": 0.5},
        },
        "data": {
            "tokenizer": str(corpora / "tokenizer.model"),
            "sequence_length": 32,
            "workers": 0,
            "text": {
                "words": {"path": str(corpora / "words"), "weight": 0.8},
                "others": {"path": str(corpora / "others"), "weight": 0.2},
            },
            "instructions": {},
        },
        "objective": {
            "instruction_share": 0.0,
            "mask_share": 0.3,
            "samples_per_row": 1,
            "mask": {"short_text_minimum_tokens": 8},
        },
        "batch": {"micro_size": 2, "global_size": ROWS},
        "optimizer": {
            "learning_rate": {"peak": 1e-2, "minimum": 1e-3, "warmup_samples": 16, "decay_samples": STEPS * ROWS}
        },
        "precision": {"dtype": "fp32"},
        "parallel": {"tensor": 1, "pipeline": 1, "data": 2, "reduce_bucket_elements": 10_000},
        "evaluation": {"every_steps": 12, "samples": 4},
        "checkpoint": {"every_steps": SAVE_EVERY, "patience_seconds": 30.0},
        "supervision": {"restart_delay_seconds": 0.0},
        "logging": {"wandb": "disabled"},
    }
    file = corpora / "config.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


@dataclass
class Site:
    """Where runs of one config happen."""

    config: Path
    folder: Path
    _jobs: int = 0

    def words(self, *overrides: str) -> list[str]:
        """What a user types behind the launcher's name."""
        return [str(self.config), f"folder={self.folder}", *overrides]

    def run(self, *overrides: str, **circumstances: Any) -> Run:
        """The run, started again when it falls; ``circumstances`` as ``run_job`` takes them. Called again, it is the
        same run."""
        self._jobs += 1
        job = self.folder / f"job-{self._jobs}"
        return Run(self.folder / "run", run_job(self.words(*overrides), folder=job, **circumstances))


@pytest.fixture
def site(config: Path, tmp_path: Path) -> Site:
    return Site(config, tmp_path)


Undisturbed = Callable[..., Run]


@pytest.fixture(scope="session")
def undisturbed(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The run to which nothing happens but what its overrides and its ``lasting`` faults bring; made once a session."""
    runs: dict[tuple[object, ...], Run] = {}

    def run(*overrides: str, lasting: Sequence[Fault] = ()) -> Run:
        key = (*overrides, *lasting)
        if key not in runs:
            site = Site(config, tmp_path_factory.mktemp("undisturbed"))
            runs[key] = site.run(*overrides, lasting=lasting, most_starts=1)
            assert not any(runs[key].starts[-1].statuses), runs[key].starts[-1].everything_said
        return runs[key]

    return run
