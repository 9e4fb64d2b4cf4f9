"""Record the golden losses: a hundred steps of the tiny preset, alone on one thread, in fp32.

    make golden REASON="why the numbers may move"

``tests/numerics/test_golden_losses.py`` trains the same steps and compares: bit for bit with the recording of a CPU of
the same kind, closely with any other. A change that moves a number shows; one that should is recorded with its reason.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import cpuinfo
import golden_corpus

from glm130b import cli
from glm130b.config.errors import UserError
from glm130b.config.load import load_config
from glm130b.data.dataset import GLMDataset

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "numerics" / "golden" / "tiny.json"

STEPS, SAMPLES = 100, 720
"""The preset's batch is 4 rows for 20 steps, then 8."""

LOSS_TOLERANCE = 1e-6
"""Nats. Between vector extensions, SSE2 to AVX-512, the losses of all steps were 5e-7 apart at most."""
NORM_TOLERANCE = 2e-5
"""Relative. The gradient norms were 6e-6 apart at most."""

PACKAGES = ("torch", "megatron-core", "deepspeed", "numpy", "sentencepiece")


@dataclass(frozen=True)
class Recording:
    """What one kind of CPU computed."""

    reason: str
    date: str
    cpu: str
    """What torch, MKL and oneDNN choose their kernels by: architecture, vendor, vector extensions."""
    versions: dict[str, str]
    data: str
    """SHA-256 of the rows."""
    losses: list[float]
    """Nats, one a step; ``repr`` of a float gives it back exactly, and JSON writes that."""
    gradient_norms: list[float]

    def is_of_the_same_kind(self, other: "Recording") -> bool:
        """Whether both must agree bit for bit."""
        return (self.cpu, self.versions) == (other.cpu, other.versions)

    def largest_change(self, other: "Recording") -> tuple[float, float]:
        """Largest absolute difference of a loss, and largest relative difference of a gradient norm."""
        losses = zip(self.losses, other.losses, strict=True)
        norms = zip(self.gradient_norms, other.gradient_norms, strict=True)
        return max(abs(a - b) for a, b in losses), max(abs(a - b) / abs(b) for a, b in norms)

    def is_close(self, other: "Recording") -> bool:
        """Whether both are the same training, computed by different kernels."""
        loss, norm = self.largest_change(other)
        return self.data == other.data and loss <= LOSS_TOLERANCE and norm <= NORM_TOLERANCE


def main(arguments: Sequence[str] | None = None) -> int:
    """Record this machine's kind of CPU, say what has changed, and return the exit status."""
    parser = argparse.ArgumentParser(description="Record the golden losses of this machine's kind of CPU.")
    parser.add_argument("--reason", default="", help="why the numbers may move; it is recorded with them")
    reason = " ".join(parser.parse_args(arguments).reason.split())
    if not reason:
        print(
            'error: no reason given; write why the numbers may move: make golden REASON="AdamW in fp64"',
            file=sys.stderr,
        )
        return UserError.exit_status
    with tempfile.TemporaryDirectory() as folder:
        new = measured(Path(folder), reason=reason)
    old = recordings()
    kept = [recording for recording in old if not recording.is_of_the_same_kind(new) and recording.is_close(new)]
    print(*changes(new, old), sep="\n")
    write([new, *kept])
    return 0


def measured(folder: Path, *, reason: str = "", environment: Mapping[str, str] | None = None) -> Recording:
    """Make the data in ``folder`` and train on it there, by the commands that a user types.

    ``environment`` is what the training process finds besides what it needs; nothing else of this one's reaches it.
    """
    overrides = [
        *_data(folder),
        f"folder={folder}",
        "name=golden",
        f"train_samples={SAMPLES}",
        "parallel={tensor: 1, pipeline: 1, data: 1, reduce_bucket_elements: 1_000_000}",
        "evaluation={every_steps: 1000, samples: 2}",
        "checkpoint.every_steps=1000",
        "logging.wandb=disabled",
    ]
    preset = ROOT / "configs" / "tiny.yaml"
    finished = subprocess.run(
        [sys.executable, ROOT / "launch" / "pretrain.sh", preset, *overrides],
        cwd=ROOT,
        env={"PATH": os.defpath, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(f"training failed:\n{finished.stdout}")
    records = map(json.loads, (folder / "golden" / "metrics.jsonl").read_text().splitlines())
    steps = [record for record in records if record["kind"] == "train"]
    return Recording(
        reason=reason,
        date=datetime.now(timezone.utc).date().isoformat(),
        cpu=cpu_kind(),
        versions={package: version(package) for package in PACKAGES},
        data=_digest(GLMDataset.open(load_config(preset, overrides), split="train")),
        losses=[step["loss"] for step in steps],
        gradient_norms=[step["gradient_norm"] for step in steps],
    )


def cpu_kind() -> str:
    """Architecture, vendor and vector extensions of this machine's CPU."""
    found = cpuinfo.get_cpu_info()
    vectors = (flag for flag in found.get("flags", ()) if flag.startswith(("amx", "asimd", "avx", "fma", "sve")))
    return " ".join([platform.machine(), found.get("vendor_id_raw", "unknown"), *sorted(vectors)])


def changes(new: Recording, old: Iterable[Recording]) -> list[str]:
    """A line for each recording of before: how far the new one is from it."""
    lines = []
    for recording in old:
        loss, norm = new.largest_change(recording)
        place = "this kind of CPU" if new.is_of_the_same_kind(recording) else f"{recording.cpu}, {recording.versions}"
        data = "" if new.data == recording.data else ", on other rows"
        fate = "" if new.is_close(recording) else ": no longer the same training"
        lines.append(
            f"{place}, {recording.date}: largest change {loss:.1e} of a loss, {norm:.1e} of a gradient norm (relative)"
            f"{data}{fate}"
        )
    return lines or ["the first recording"]


def recordings() -> list[Recording]:
    """What has been recorded."""
    return [Recording(**raw) for raw in json.loads(GOLDEN.read_text())] if GOLDEN.exists() else []


def write(found: Sequence[Recording]) -> None:
    """One number a line, so that a change of the file can be read."""
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps([asdict(recording) for recording in found], indent=1) + "\n")
    print(f"{GOLDEN.relative_to(ROOT)}: {len(found)} kind{'s' * (len(found) > 1)} of CPU")


def _data(folder: Path) -> list[str]:
    """Tokenizer and corpora of the grammar; the overrides that name them."""
    text, pairs = golden_corpus.write_corpus(folder)
    tokenizer = ["--tokenizer", str(folder / "tokenizer.model"), "--validation-share", "0.05"]
    commands = (
        ["tokenizer", "train", "--output", str(folder / "tokenizer.model"), "--pieces", "4000", str(text), str(pairs)],
        ["prepare", *tokenizer, "--output", str(folder / "text"), str(text)],
        ["prepare", *tokenizer, "--output", str(folder / "pairs"), "--instructions", str(pairs)],
    )
    for command in commands:
        with contextlib.redirect_stdout(sys.stderr):
            if status := cli.main(command):
                raise RuntimeError(f"glm130b {' '.join(command)}: status {status}")
    return [
        f"data.tokenizer={folder / 'tokenizer.model'}",
        f"data.text={{grammar: {{path: {folder / 'text'}, weight: 1}}}}",
        f"data.instructions={{grammar: {{path: {folder / 'pairs'}, weight: 1}}}}",
    ]


def _digest(rows: GLMDataset) -> str:
    digest = hashlib.sha256()
    for row in map(rows.__getitem__, range(SAMPLES)):
        for array in (row.tokens, row.targets, row.loss_mask, row.positions, row.block_positions):
            digest.update(array.astype("<i8").tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
