"""How fast ``glm130b prepare`` is next to SentencePiece's own batch, and how much memory all its processes take.

    python benchmarks/preparing.py                               # the demo's tokenizer, 200 MB of the demo's texts
    python benchmarks/preparing.py --tokenizer my.model --megabytes 10000 --workers 1 8 32 text.jsonl

The command is timed from its start to its end: reading, tokenising, merging, checksums and the wait for the disk.
SentencePiece has the texts in memory and writes nothing. CPU seconds are those of all processes and threads together,
which other work on the machine changes less.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from typing import NamedTuple

import sentencepiece
import torch
from machine import describe_machine

from glm130b.data.corpus.manifest import Manifest
from glm130b.data.reading.documents import TEXT_FIELDS, read_documents
from glm130b.data.reading.formats import find_files

DEMO = Path("data/demo")
BATCH_BYTES = 8 << 20


def main() -> None:
    options = _options()
    print(f"machine: {describe_machine(torch.device('cpu'))}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file = Path(folder) / "input.jsonl"
        num_bytes = _write_input(file, options)
        print(f"{num_bytes / 1e6:.0f} MB of text in {file.stat().st_size / 1e6:.0f} MB of JSON lines")
        print(f"{'':<24} {'seconds':>8} {'CPU':>8} {'MB/s':>8} {'tokens/s':>12} {'peak MiB':>9}")
        for num_threads in options.workers:
            taken, num_tokens = _sentencepiece(file, options.tokenizer, num_threads)
            _print(f"SentencePiece, {num_threads} threads", taken, num_bytes, num_tokens)
        for num_workers in options.workers:
            output = Path(folder) / f"out{num_workers}"
            words = ["--tokenizer", options.tokenizer, "--output", output, "--workers", str(num_workers), file]
            taken, peak_bytes = _measured([sys.executable, "-m", "glm130b", "prepare", *words])
            num_tokens = sum(split.tokens - split.documents for split in Manifest.read(output).splits.values())
            _print(f"prepare, {num_workers} workers", taken, num_bytes, num_tokens, peak_bytes)


def _write_input(file: Path, options: Namespace) -> int:
    """The documents again and again, numbered so that no two are equal; bytes of text."""
    texts = [text for (text,) in read_documents(find_files(options.files), layouts=(TEXT_FIELDS,), problems=[])]
    num_bytes = 0
    with file.open("w") as lines:
        for number, text in zip(count(), cycle(texts), strict=False):
            document = f"{number}\n{text}"
            lines.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
            num_bytes += len(document.encode())
            if num_bytes >= options.megabytes * 1e6:
                return num_bytes
    raise AssertionError("cycle ends")


class Taken(NamedTuple):
    """How long something took."""

    seconds: float
    cpu_seconds: float


def _sentencepiece(file: Path, tokenizer: Path, num_threads: int) -> tuple[Taken, int]:
    """Time in its batch, and tokens."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    seconds = cpu_seconds = 0.0
    num_tokens = 0
    for batch in _batches(file):
        started, cpu_started = time.perf_counter(), time.process_time()
        tokens = processor.encode(batch, num_threads=num_threads)
        seconds += time.perf_counter() - started
        cpu_seconds += time.process_time() - cpu_started
        num_tokens += sum(map(len, tokens))
    return Taken(seconds, cpu_seconds), num_tokens


def _batches(file: Path) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for (text,) in read_documents([file], layouts=(TEXT_FIELDS,), problems=[]):
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _measured(command: list[str | Path]) -> tuple[Taken, int]:
    """Its time, and the most bytes that the process and its descendants had resident at one moment."""
    started, cpu_started, peak = time.perf_counter(), _cpu_seconds_of_children(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(map(_resident, _family(process.pid))))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"ended with status {process.returncode}")
    return Taken(time.perf_counter() - started, _cpu_seconds_of_children() - cpu_started), peak


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _family(int(child))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _print(what: str, taken: Taken, num_bytes: int, num_tokens: int, peak_bytes: int | None = None) -> None:
    peak = "" if peak_bytes is None else f"{peak_bytes / 2**20:.0f}"
    rates = f"{num_bytes / taken.seconds / 1e6:>8.2f} {num_tokens / taken.seconds:>12,.0f}"
    print(f"{what:<24} {taken.seconds:>8.1f} {taken.cpu_seconds:>8.1f} {rates} {peak:>9}", flush=True)


def _options() -> Namespace:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    texts = [DEMO / "text" / f"{name}.jsonl" for name in ("english", "code", "chinese")]
    parser.add_argument("files", nargs="*", default=texts, help="as for `glm130b prepare`")
    parser.add_argument("--tokenizer", type=Path, default=DEMO / "tokenizer.model", help="a SentencePiece model")
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="temporary files go there, twice the text and the tokens")
    return parser.parse_args()


if __name__ == "__main__":
    main()
