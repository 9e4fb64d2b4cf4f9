"""The main job as a user runs it: real launchers, real text, real files, a real kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from glm130b.config.load import load_config
from tests.harness.records import without_machine
from tests.integration.conftest import BIN, Command

SHORT = ["batch.ramp=null", "evaluation.every_steps=4", "evaluation.samples=8", "checkpoint.every_steps=4"]
TWO_STAGES = ["parallel.tensor=1", "parallel.pipeline=2", "parallel.data=1", "logging.wandb=disabled"]


def metrics(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The run's records, without what the machine says."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [without_machine(record) for record in records if record["kind"] == kind]


def run_folder(demo: list[str], name: str) -> Path:
    return Path(next(word for word in demo if word.startswith("folder=")).partition("=")[2]) / name


def test_deepspeed_trains_saves_resumes_bit_for_bit_and_fills_blanks(
    root: Path, demo: list[str], command: Command
) -> None:
    """TP 2 x PP 2 x DP 2 on eight processes, the layout of the README."""

    def deepspeed(name: str, samples: int) -> str:
        words = [
            "deepspeed",
            "--num_accelerators",
            "8",
            root / "launch" / "pretrain.sh",
            root / "configs" / "tiny.yaml",
        ]
        return command([*words, *demo, *SHORT, f"name={name}", f"train_samples={samples}"])

    printed = deepspeed("halves", 32)
    assert "TP 2 x PP 2 x DP 2" in printed
    assert len(re.findall(r"^ +\d+ +\d\.\d{4} ", printed, re.M)) == 4  # a line a step
    assert "Traceback" not in printed
    assert "Warning" not in printed

    halves = run_folder(demo, "halves")
    assert sorted(record["step"] for record in metrics(halves, "validation")) == [0, 4]
    assert {"loss", "loss/mask", "loss/gmask"} <= metrics(halves, "validation")[0].keys()
    assert list((halves / "wandb").glob("offline-run-*/run-*.wandb"))
    resolved = load_config(halves / "config.yaml")
    assert resolved == load_config(root / "configs" / "tiny.yaml", [*demo, *SHORT, "name=halves", "train_samples=32"])
    assert (halves / "checkpoints" / "latest").read_text() == "step-00000004"

    assert "at step 4" in deepspeed("halves", 64)
    deepspeed("whole", 64)
    whole = run_folder(demo, "whole")
    assert metrics(halves) == metrics(whole)
    assert [record["step"] for record in metrics(whole)] == list(range(1, 9))

    filled = command(
        [
            "glm130b",
            "generate",
            halves,
            "--prompt",
            "The [MASK] of the list.",
            "--prompt",
            "Return a [gMASK]",
            "--max-tokens",
            "8",
        ]
    )
    assert len(re.findall(r"^blank   '.+'$|^blank   \".+\"$", filled, re.M)) == 2
    assert "filled  Return a " in filled


@pytest.mark.full
def test_a_killed_run_ends_as_the_undisturbed_one(root: Path, demo: list[str], command: Command) -> None:
    """SIGKILL to every process after a checkpoint; the same command again goes on from it and changes no number."""
    words = [BIN / "torchrun", "--nproc-per-node", "2", root / "launch" / "pretrain.sh", root / "configs" / "tiny.yaml"]
    words += [*demo, *SHORT, *TWO_STAGES, "train_samples=240"]
    command([*words, "name=undisturbed", "data.workers=1"])  # who builds the rows changes no number

    killed = run_folder(demo, "killed")
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "DS_ACCELERATOR": "cpu"}
    job = subprocess.Popen(
        [*words, "name=killed"],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (killed / "checkpoints" / "latest").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGKILL)  # torchrun, which is alone in its session
    for process in psutil.process_iter(["cmdline"]):
        if f"folder={killed.parent}" in (process.info["cmdline"] or []):
            process.kill()
    job.wait(timeout=30)
    assert 4 <= len(metrics(killed)) < 30, "the kill came too late to mean anything"

    command([*words, "name=killed"])
    assert metrics(killed) == metrics(run_folder(demo, "undisturbed"))


def test_the_shell_starts_the_main_job(root: Path, demo: list[str], command: Command) -> None:
    words = ["bash", root / "launch" / "pretrain.sh", root / "configs" / "tiny.yaml", *demo, *SHORT, *TWO_STAGES]
    command([*words, "name=shell", "train_samples=8", "precision.dtype=bf16", "parallel.recompute=full"])
    assert [record["step"] for record in metrics(run_folder(demo, "shell"))] == [1]


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_fresh_clone_trains_with_one_command(root: Path, tmp_path: Path) -> None:
    """The README's first command, environment and all: the held-out loss falls by a quarter, a blank is filled."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", root, clone], check=True)
    subprocess.run(["make", "setup", f"PYTHON={sys.executable}"], cwd=clone, check=True, timeout=900)
    started = time.monotonic()
    made = subprocess.run(
        ["make", "train"], cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    seconds = time.monotonic() - started
    assert made.returncode == 0, made.stdout
    validation = [record["loss"] for record in metrics(clone / "runs" / "tiny", "validation")]
    print(f"make train, install aside: {seconds:.0f} s; held-out loss {validation[0]:.3f} -> {validation[-1]:.3f}")
    assert validation[-1] < 0.75 * validation[0]
    assert made.stdout.count("\nfilled  ") == 2

    again = subprocess.run(
        ["make", "train"], cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    assert "is complete, nothing is left to train" in again.stdout
