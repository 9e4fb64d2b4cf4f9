"""The benchmarks run, at a size where their numbers mean nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


def run(root: Path, script: str, *options: str) -> str:
    command = [sys.executable, str(root / "benchmarks" / script), *options]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True, timeout=120).stdout


def test_attention(root: Path) -> None:
    tiny = ("--device", "cpu", "--heads", "2", "--head-dim", "8", "--sequence", "64", "--repeats", "1")
    printed = run(root, "attention.py", *tiny, "--dtype", "fp32")
    assert printed.startswith("machine: ")
    assert "attention sdpa, fp32, 2 heads of 8" in printed
    ratios = re.findall(r"^(one \[gMASK\]|four \[MASK\]|causal).* (\d+\.\d+)$", printed, re.MULTILINE)
    assert len(ratios) == 3
    assert all(float(ratio) > 0 for _, ratio in ratios)


def test_step(root: Path) -> None:
    tiny = ("--layers", "2", "--hidden", "32", "--heads", "4", "--sequence", "32", "--vocabulary", "64")
    printed = run(root, "step.py", *tiny, "--dtype", "bf16", "--global-size", "2", "--steps", "2", "--peak-tflops", "1")
    assert len(re.findall(r"^step \d+: .* loss \d", printed, re.MULTILINE)) == 4
    for quantity in ("step time", "tokens/s", "model TFLOP/s", "MFU", "peak memory"):
        assert re.search(rf"^{quantity} +\d", printed, re.MULTILINE), quantity


def test_checkpoint(root: Path) -> None:
    printed = run(root, "checkpoint.py", "--turns", "1", "--layers", "1", "--hidden", "128", "--vocab", "512")
    assert printed.startswith("machine: ")
    assert re.search(r"^in place .*stall", printed, re.MULTILINE)
    assert re.search(r"^beside .*stall", printed, re.MULTILINE)


@pytest.mark.full
def test_norms(root: Path) -> None:
    tiny = ("--layers", "1", "--hidden", "32", "--sequence", "32", "--vocabulary", "64", "--rows", "2", "--steps", "2")
    printed = run(root, "norms.py", *tiny)
    assert printed.startswith("machine: ")
    for reading in ("norms of the gradient", "input side as it arises", "weights and their change"):
        assert re.search(rf"^{reading} +\d+\.\d+ s +\d+\.\d+%", printed, re.MULTILINE), reading


def test_plan(root: Path) -> None:
    printed = run(root, "plan.py")
    assert len(re.findall(r"^(GLM|GPT).* +\d+\.\d+s +\d+\.\d+s +[+-]\d+\.\d% +\d+\.\d%$", printed, re.MULTILINE)) == 10
    assert "search over 768 GPUs" in printed


def test_rows(root: Path) -> None:
    printed = run(root, "rows.py", "--tokens", "300000", "--seconds", "0.02", "--turns", "1")
    assert printed.startswith("machine: ")
    rows = r"^(\[MASK\]|\[gMASK\]|30 / 70|\[sMASK\]), documents (apart|together) +\d+ "
    assert len(re.findall(rows, printed, re.MULTILINE)) == 8
    assert re.search(r"^instructions +\d+ ", printed, re.MULTILINE)
    assert re.search(r"^mixture to tensors +\d+ ", printed, re.MULTILINE)


def test_tokenizing_and_preparing(root: Path, demo: list[str]) -> None:
    model = Path(demo[0].partition("=")[2])
    text = str(model.parent / "text" / "english.jsonl")
    tokenizer = ("--tokenizer", str(model))
    printed = run(root, "tokenizing.py", *tokenizer, "--repeats", "1", "--processes", "1", "--", text)
    assert re.search(r"^encode_flat +[\d,]+ +\d+\.\d+ +\d+\.\d+$", printed, re.MULTILINE)
    printed = run(root, "preparing.py", *tokenizer, "--megabytes", "1", "--workers", "1", "--", text)
    assert re.search(r"^prepare, 1 workers +\d+\.\d ", printed, re.MULTILINE)
