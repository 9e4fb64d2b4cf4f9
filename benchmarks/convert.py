"""How much memory and time ``glm130b convert`` takes: a synthetic release of a few GB goes in and comes out again.

    python benchmarks/convert.py                    # a model of 2.2 GB in fp16; 9 GB of temporary files
    python benchmarks/convert.py --layers 4 --hidden 512

Peak memory is the kernel's VmHWM of the command's process: its own memory and every page of a file that it has mapped.
"""

import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from glm130b.checkpoint.released.layout import released_tensors, shard_file
from glm130b.config.load import load_config
from glm130b.config.model import ModelConfig

ROOT = Path(__file__).resolve().parents[1]
COMMAND = """
import sys
from glm130b.cli import main
status = main(sys.argv[1:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""


class Measured(NamedTuple):
    """One command."""

    what: str
    seconds: float
    peak_bytes: int


class Workplace:
    """A folder with a released checkpoint, and the commands that convert it."""

    def __init__(self, folder: Path, *, num_layers: int, hidden_size: int, vocab_size: int, num_shards: int) -> None:
        self.folder = folder
        self.num_shards = num_shards
        self.overrides = [
            f"folder={folder}",
            f"data.tokenizer={_tokenizer(folder)}",
            f"model.num_layers={num_layers}",
            f"model.hidden_size={hidden_size}",
            f"model.num_attention_heads={num_shards * max(1, hidden_size // (128 * num_shards))}",
            f"model.ffn_hidden_size={8 * hidden_size // 3 // 64 * 64}",
            f"model.vocab_size={vocab_size}",
            "model.rotary_table=fp16",
            "parallel.tensor=1",
            "parallel.pipeline=1",
        ]
        self.model: ModelConfig = load_config(ROOT / "configs" / "tiny.yaml", self.overrides).model
        _write_release(folder / "released", self.model, num_shards)

    @property
    def largest_tensor(self) -> int:
        """Elements."""
        return max(torch.Size(tensor.shape).numel() for tensor in released_tensors(self.model))

    def convert(self) -> Iterator[Measured]:
        """In and out again."""
        config = str(ROOT / "configs" / "tiny.yaml")
        released, exported = str(self.folder / "released"), str(self.folder / "exported")
        words = ["import", released, config, "name=run", *self.overrides]
        yield _measured(f"import, {self.num_shards} shards", words)
        words = ["export", str(self.folder / "run"), exported, "--tensor", str(self.num_shards)]
        yield _measured(f"export, {self.num_shards} shards", words)


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--vocab", type=int, default=65536)
    parser.add_argument("--shards", type=int, default=8)
    arguments = parser.parse_args()
    print("| command | time | peak memory | read | written |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as nothing, tempfile.TemporaryDirectory() as folder:
        empty = Workplace(Path(nothing), num_layers=1, hidden_size=64, vocab_size=512, num_shards=1)
        _print_rows(empty, "a model of nothing: ")
        sizes = {"hidden_size": arguments.hidden, "vocab_size": arguments.vocab, "num_shards": arguments.shards}
        full = Workplace(Path(folder), num_layers=arguments.layers, **sizes)
        _print_rows(full)
        print(f"\nLargest tensor: {4 * full.largest_tensor / 1e6:.0f} MB in fp32.")


def _print_rows(workplace: Workplace, which: str = "") -> None:
    folders = [workplace.folder / name for name in ("released", "run", "exported")]
    for (what, seconds, peak_bytes), (read, written) in zip(workplace.convert(), pairwise(folders), strict=True):
        sizes = f"{_size(read) / 1e9:.2f} GB | {_size(written) / 1e9:.2f} GB"
        print(f"| {which}{what} | {seconds:.0f} s | {peak_bytes / 1e6:.0f} MB | {sizes} |", flush=True)


def _measured(what: str, words: Sequence[str]) -> Measured:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", COMMAND, "convert", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    peak_kib = int(done.stdout.split("VmHWM:")[1].split()[0])
    return Measured(what, time.monotonic() - started, peak_kib * 1024)


def _write_release(folder: Path, model: ModelConfig, num_shards: int) -> None:
    """Random weights; copied tensors are zero, so that every shard has the same."""
    (folder / "1").mkdir(parents=True)
    (folder / "latest").write_text("1")
    generator = torch.Generator().manual_seed(0)
    for shard in range(num_shards):
        module = {
            tensor.key: torch.zeros(tensor.shape, dtype=torch.float16)
            if tensor.cut is None
            else torch.randn(tensor.shard_shape(num_shards), generator=generator).half()
            for tensor in released_tensors(model)
        }
        torch.save({"module": module}, folder / "1" / shard_file(shard))


def _tokenizer(folder: Path) -> Path:
    """Any will do: an import keeps its checksum."""
    text, model = folder / "text.jsonl", folder / "tokenizer.model"
    words = (ROOT / "README.md").read_text().replace("\\", " ").replace('"', " ").split("\n")
    text.write_text("\n".join(f'{{"text": "{" ".join(line.split())}"}}' for line in words if line.strip()))
    command = [sys.executable, "-m", "glm130b", "tokenizer", "train", "--output", model, "--pieces", "400", text]
    subprocess.run(command, check=True, capture_output=True)
    return model


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
