"""The import contract of pyproject.toml holds, and would notice if it did not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAYERS = (
    "checkpoint",
    "config",
    "data",
    "inference",
    "model",
    "parallel",
    "plan",
    "preflight",
    "provenance",
    "report",
    "training",
)

NESTED = (
    "checkpoint/released",
    "training/sinks",
    "training/stability",
    *(
        f"data/{room}"
        for room in ("cleaning", "corpus", "mixing", "objectives", "preparation", "reading", "tokenizers")
    ),
)

TORCHLESS = (
    "cli",
    "config.files",
    "config.load",
    "config.rules",
    "environment",
    "launcher",
    "launcher_arguments",
    "plan.command",
    "preflight.command",
)

VIOLATIONS = [
    ("config/bad.py", "import glm130b.data", "Layers"),
    ("data/bad.py", "import glm130b.model", "Layers"),
    ("training/bad.py", "def f():\n    import glm130b.checkpoint", "Layers"),
    ("checkpoint/bad.py", "import glm130b.inference", "Layers"),
    ("inference/bad.py", "import glm130b.plan", "Layers"),
    ("stray.py", "", "Layers"),
    ("launcher.py", "import glm130b.parallel", "The launcher"),
    ("config/bad.py", "import torch", "need no torch"),
    ("plan/bad.py", "import glm130b.training.torchy", "need no torch"),
    ("model/bad.py", "import wandb", "The model is the paper"),
    ("data/bad.py", "import deepspeed", "Data knows files"),
    ("model/bad.py", "import glm130b.model.worse", "No cycles"),
]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def skeleton(root: Path, tmp_path: Path) -> Path:
    """Our contract around a package that has our folders and nothing in them."""
    shutil.copy(root / "pyproject.toml", tmp_path)
    package = tmp_path / "glm130b"
    for folder in ("", *LAYERS, *NESTED):
        (package / folder).mkdir(parents=True, exist_ok=True)
        (package / folder / "__init__.py").touch()
    for module in (
        "assembly",
        "cli",
        "durable",
        "environment",
        "installed",
        "launcher",
        "launcher_arguments",
        "pretrain",
    ):
        (package / f"{module}.py").touch()
    (package / "training" / "torchy.py").write_text("import torch")
    (package / "model" / "worse.py").write_text("import glm130b.model.bad")
    (package / "model" / "bad.py").touch()
    return tmp_path


def test_the_contract_is_kept(root: Path) -> None:
    outcome = lint_imports(root)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_an_empty_house_keeps_it(skeleton: Path) -> None:
    outcome = lint_imports(skeleton)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(("file", "text", "contract"), VIOLATIONS)
def test_a_violation_is_noticed(skeleton: Path, file: str, text: str, contract: str) -> None:
    (skeleton / "glm130b" / file).write_text(text)
    outcome = lint_imports(skeleton)
    assert outcome.returncode != 0
    assert [line for line in outcome.stdout.splitlines() if contract in line and "BROKEN" in line], outcome.stdout


def test_the_skeleton_has_the_folders_of_the_house(root: Path) -> None:
    folders = {init.parent.name for init in (root / "glm130b").glob("*/__init__.py")}
    assert folders == set(LAYERS)


@pytest.mark.parametrize("module", TORCHLESS)
def test_what_needs_no_torch_does_not_load_it(module: str) -> None:
    heavy = ("deepspeed", "megatron", "numpy", "sentencepiece", "torch", "wandb")
    code = f"import sys, glm130b.{module}; print(*sorted(set({heavy}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.split() == []
