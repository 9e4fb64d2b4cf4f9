"""A user's mistake under the real launchers: one message from one rank, exit status 2, no stack trace, no hang."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

BIN = Path(sys.executable).parent
ENVIRONMENT = {"PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1", "DS_ACCELERATOR": "cpu"}
SECONDS = 150
"""Far above the few seconds that these take, far below a process group's patience."""


class Outcome(NamedTuple):
    status: int
    errors: list[str]
    """What our processes reported."""
    text: str
    """All that was printed."""


def run(command: list[str | Path], folder: Path, environment: dict[str, str] = ENVIRONMENT) -> Outcome:
    finished = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    errors = [line for line in finished.stdout.splitlines() if line.startswith("glm130b: error")]
    return Outcome(finished.returncode, errors, finished.stdout)


def deepspeed(processes: int, root: Path) -> list[str | Path]:
    return [BIN / "deepspeed", "--num_accelerators", str(processes), root / "launch" / "pretrain.sh"]


@pytest.mark.parametrize(
    ("processes", "words", "errors"),
    [
        (2, ["model.num_layer=3"], ["model.num_layer: unknown key; the nearest is model.num_layers"]),
        (2, ["model.num_layers=four", "seed=-1"], ["seed: -1", 'model.num_layers: "four" is not a whole number']),
        pytest.param(
            4,
            [],
            [
                "parallel: tensor 2 x pipeline 2 x data 2 needs 8 processes, the launcher started 4",
                "data.tokenizer: data/demo/tokenizer.model",
                "data.text.english.path",
                "data.text.code.path",
                "data.text.chinese.path",
                "data.instructions.facts.path",
            ],
            marks=pytest.mark.full,
        ),
    ],
)
def test_deepspeed_ends_with_status_2(
    processes: int, words: list[str], errors: list[str], root: Path, tmp_path: Path
) -> None:
    outcome = run([*deepspeed(processes, root), root / "configs" / "tiny.yaml", *words], tmp_path)
    assert outcome.status == 2, outcome.text
    assert len(outcome.errors) == len(errors), outcome.text
    for line, error in zip(outcome.errors, errors, strict=True):
        assert line.startswith(f"glm130b: error: {error}")
    assert "Traceback" not in outcome.text


def test_torchrun_shows_the_same_message_and_its_own_status(root: Path, tmp_path: Path) -> None:
    """torchrun itself ends with 1 and its own trace whatever a process ends with; it reports our 2."""
    command = [BIN / "torchrun", "--nproc-per-node", "2", root / "launch" / "pretrain.sh", "nowhere.yaml"]
    outcome = run(command, tmp_path)
    assert outcome.status == 1
    assert outcome.errors == ["glm130b: error: nowhere.yaml: no such file; check the path"]
    assert "exitcode  : 2" in outcome.text


def test_the_shell_finds_a_mistake_before_it_starts_a_launcher(root: Path, tmp_path: Path) -> None:
    outcome = run(["bash", root / "launch" / "pretrain.sh", root / "configs" / "tiny.yaml", "seed=x"], tmp_path)
    assert outcome.status == 2
    assert len(outcome.text.splitlines()) == 1
    assert "seed" in outcome.text


def test_the_shell_starts_as_many_processes_as_the_layout_needs(root: Path, tmp_path: Path) -> None:
    """From any directory, through a path with spaces, with nothing on PATH: .venv is found beside the script."""
    clone = tmp_path / "a clone"
    shutil.copytree(root / "launch", clone / "launch")
    (clone / ".venv").symlink_to(BIN.parent)
    shutil.copy(root / "configs" / "tiny.yaml", clone / "tiny run.yaml")
    command = ["bash", "../a clone/launch/pretrain.sh", "tiny run.yaml", "parallel.data=1"]
    outcome = run(command, clone, {"PATH": "/usr/bin:/bin"})
    assert outcome.status == 2, outcome.text
    assert [error.split(":")[2].strip() for error in outcome.errors] == [
        "data.tokenizer",
        "data.text.english.path",
        "data.text.code.path",
        "data.text.chinese.path",
        "data.instructions.facts.path",
    ]
    assert "needs" not in outcome.text  # four processes are what tensor 2 x pipeline 2 x data 1 asks for


def test_plain_python_is_a_job_of_one(root: Path, tmp_path: Path) -> None:
    outcome = run([sys.executable, root / "launch" / "pretrain.sh", root / "configs" / "tiny.yaml"], tmp_path)
    assert outcome.status == 2
    assert "needs 8 processes, the launcher started 1" in outcome.errors[0]


@pytest.mark.parametrize("opener", ["bash", sys.executable])
def test_help(opener: str, root: Path, tmp_path: Path) -> None:
    outcome = run([opener, root / "launch" / "pretrain.sh", "--help"], tmp_path)
    assert outcome.status == 0
    assert outcome.text.startswith("usage: deepspeed launch/pretrain.sh CONFIG")
