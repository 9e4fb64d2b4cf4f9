"""Tokenising on one core next to SentencePiece's own batch, and in several processes.

python benchmarks/tokenizing.py                              # the demo's tokenizer on the demo's texts
python benchmarks/tokenizing.py --tokenizer my.model --processes 1 2 4 8 16 32 text.jsonl
"""

import multiprocessing
import os
import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

DEMO = Path("data/demo")


def main() -> None:
    import torch
    from machine import describe_machine

    options = _options()
    work = Work.load(options)
    print(f"machine: {describe_machine(torch.device('cpu'))}, {os.cpu_count()} cores")
    print(f"{len(work.texts)} texts, {work.num_bytes / 1e6:.1f} MB, {work.num_tokens / 1e6:.2f} M tokens")
    _beside_sentencepiece(work, options.repeats)
    _in_processes(work, options)


class Work(NamedTuple):
    """What is encoded again and again."""

    tokenizer: Any
    sentencepiece: Any
    texts: list[str]
    num_bytes: int
    num_tokens: int

    @classmethod
    def load(cls, options: Namespace) -> "Work":
        import sentencepiece

        from glm130b.data.reading.documents import INSTRUCTION_FIELDS, TEXT_FIELDS, read_documents
        from glm130b.data.reading.formats import find_files
        from glm130b.data.tokenizers.tokenizer import Tokenizer

        files = find_files(options.files)
        documents = read_documents(files, layouts=(TEXT_FIELDS, INSTRUCTION_FIELDS), problems=[])
        texts = [text for document in documents for text in document]
        tokenizer = Tokenizer.load(options.tokenizer)
        flat, _ = tokenizer.encode_flat(texts)
        processor = sentencepiece.SentencePieceProcessor(model_file=str(options.tokenizer))
        return cls(tokenizer, processor, texts, sum(len(text.encode()) for text in texts), len(flat))


def _beside_sentencepiece(work: Work, repeats: int) -> None:
    """In turns, each once a turn, so that a machine that slows down slows all."""
    ways: dict[str, Callable[[], object]] = {
        "SentencePiece's batch": lambda: work.sentencepiece.encode(work.texts, num_threads=1),
        "its batch as arrays": lambda: work.sentencepiece.encode(work.texts, num_threads=1, return_type="numpy"),
        "encode_flat": lambda: work.tokenizer.encode_flat(work.texts),
        "encode_batch": lambda: work.tokenizer.encode_batch(work.texts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            seconds[name].append(_timed(way))
    print(f"{'one process':<22} {'tokens/s':>12} {'MB/s':>8} {'ratio':>8}")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        # Each turn's own ratio: what both share, the machine's mood, cancels.
        pairs = zip(seconds["SentencePiece's batch"], taken, strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        print(f"{name:<22} {work.num_tokens / median:>12,.0f} {work.num_bytes / median / 1e6:>8.2f} {ratio:>8.2f}")


def _in_processes(work: Work, options: Namespace) -> None:
    """Every process encodes all texts: the rate of all together, and what share of perfect scaling that is."""
    print(f"{'processes':<22} {'tokens/s':>12} {'MB/s':>8} {'scaling':>8}")
    rates = []
    for processes in options.processes:
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(processes)
        with ProcessPoolExecutor(processes, context, Worker.start, (options, barrier)) as pool:
            spans = list(pool.map(Worker.encode, range(processes)))
        taken = max(end for _, end in spans) - min(start for start, _ in spans)
        rates.append(processes * options.repeats * work.num_tokens / taken)
        scaling = rates[-1] / rates[0] * options.processes[0] / processes
        megabytes = rates[-1] * work.num_bytes / work.num_tokens / 1e6
        print(f"{processes:<22} {rates[-1]:>12,.0f} {megabytes:>8.2f} {scaling:>8.2f}")


class Worker:
    """What a process of the pool holds."""

    work: Work
    repeats: int
    barrier: Any

    @classmethod
    def start(cls, options: Namespace, barrier: Any) -> None:
        cls.work, cls.repeats, cls.barrier = Work.load(options), options.repeats, barrier

    @classmethod
    def encode(cls, _: int) -> tuple[float, float]:
        """Seconds at which it began and ended, by a clock that all processes share."""
        cls.barrier.wait()  # so that each process takes one task, and all begin together
        start = time.monotonic()
        for _ in range(cls.repeats):
            cls.work.tokenizer.encode_flat(cls.work.texts)
        return start, time.monotonic()


def _timed(way: Callable[[], object]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def _options() -> Namespace:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", default=[str(DEMO / "text")], help="as for `glm130b tokenizer train`")
    parser.add_argument("--tokenizer", type=Path, default=DEMO / "tokenizer.model", help="a SentencePiece model")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    return parser.parse_args()


if __name__ == "__main__":
    main()
