"""Rows on one core, from a corpus on disk: tokens of finished rows a second, next to the same rules in lists and loops.

    python benchmarks/rows.py
    python benchmarks/rows.py --document-tokens 100000000          # one document: nothing to keep apart

Random tokens of a vocabulary as large as icetk's, in documents of random lengths; 1 in 25 ends a sentence. In turns,
the median of the turns; a ratio is the median of those within a turn, so that a machine that slows down slows both.
"""

import statistics
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from machine import describe_machine
from plain_rows import PlainAnswers, PlainBatches, PlainRows

from glm130b.config.sections import RunConfig
from glm130b.data.batch import collate
from glm130b.data.corpus.corpus import Corpus
from glm130b.data.corpus.indexed_writer import IndexedDatasetWriter
from glm130b.data.mixing.era import Era
from glm130b.data.mixing.mixture import Mixture
from glm130b.data.objectives.instruction_rows import InstructionRows
from glm130b.data.objectives.sentences import Sentences
from glm130b.data.objectives.text_rows import TextRows
from glm130b.data.tokenizers.special_tokens import SpecialTokens
from glm130b.data.tokenizers.tokenizer import Tokenizer

PIECES = 150_000
MIX = {"mask": 3, "gmask": 7}
"""Of ten rows."""


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        _write(Path(folder), options)
        print(f"machine: {describe_machine(torch.device('cpu'))}")
        print(
            f"{options.tokens / 1e6:g} M tokens, documents of {options.document_tokens:,} tokens on average, "
            f"rows of {options.sequence}"
        )
        ways = _ways(Path(folder), options)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.turns):
            for name, way in ways.items():
                seconds[name].append(_seconds_per_row(way, options.seconds))
    _report(seconds, options.sequence)


class Vocabulary:
    """As much of a tokenizer as rows need: every 25th piece is a full stop, the others are words."""

    special = SpecialTokens.after(PIECES)
    vocab_size = PIECES + 8

    def piece_bytes(self, token: int) -> bytes:
        return b" word" if token % 25 else "。".encode()


def _write(folder: Path, options: Namespace) -> None:
    """A text corpus and one of instructions, as Megatron's .bin and .idx."""
    rng, special = np.random.default_rng(0), Vocabulary.special
    lengths = rng.lognormal(
        np.log(options.document_tokens) - 0.5, 1.0, 2 * options.tokens // options.document_tokens + 1
    )
    ends = np.minimum(np.cumsum(np.maximum(2, lengths.astype(np.int64))), options.tokens)
    ends = ends[: ends.searchsorted(options.tokens) + 1]
    tokens = rng.integers(PIECES, size=ends[-1], dtype=np.int32)
    tokens[ends - 1] = special.eod
    _corpus_of(folder / "text", tokens, np.diff(ends, prepend=0), sequences=1)
    pairs = np.stack((rng.integers(20, 600, 20_000), rng.integers(1, 60, 20_000)), axis=1).ravel()
    _corpus_of(folder / "pairs", rng.integers(PIECES, size=pairs.sum(), dtype=np.int32), pairs, sequences=2)


def _corpus_of(prefix: Path, tokens: Any, lengths: Any, *, sequences: int) -> None:
    writer = IndexedDatasetWriter(prefix, vocab_size=Vocabulary.vocab_size, sequences_per_document=sequences)
    writer.add(tokens, lengths)
    writer.close()


def _ways(folder: Path, options: Namespace) -> dict[str, Callable[[int], object]]:
    """What is measured: a row of each kind by its number."""
    ways: dict[str, Callable[[int], object]] = {}
    tokenizer = cast(Tokenizer, Vocabulary())
    for isolate in (True, False):
        config = _config(folder, options, isolate=isolate)
        corpus = Corpus(folder / "text", split="train", kind="text", tokenizer="", vocab_size=Vocabulary.vocab_size)
        text = TextRows(
            corpus, config, source="text", split="train", special=tokenizer.special, sentences=Sentences(tokenizer)
        )
        plain = PlainRows(corpus, config, Vocabulary.special)
        documents = "documents apart" if isolate else "documents together"
        for name, objective in (("[MASK]", "mask"), ("[gMASK]", "gmask"), ("30 / 70", "mix"), ("[sMASK]", "smask")):
            ways[f"{name}, {documents}"] = _rows_of(text, objective)
            if objective != "smask":
                ways[f"{name}, {documents}, plain"] = _rows_of(plain, objective)
        if isolate:
            pairs = Corpus(folder / "pairs", split="train", kind="instructions", tokenizer="")
            answers = InstructionRows(pairs, config, source="pairs", split="train", special=Vocabulary.special)
            plain_answers = PlainAnswers(pairs, config, Vocabulary.special)
            ways["instructions"], ways["instructions, plain"] = answers.row, plain_answers.row
            ways["mixture to tensors"] = _batches_of(text, answers, Mixture([Era.of(config)]))
            ways["mixture to tensors, plain"] = PlainBatches(plain, plain_answers, config).batch
    return ways


def _rows_of(rows: Any, objective: str) -> Callable[[int], object]:
    if objective != "mix":
        return lambda number: rows.row(objective, number)
    order = [
        "mask" if (number + 1) * MIX["mask"] // 10 > number * MIX["mask"] // 10 else "gmask" for number in range(10)
    ]
    return lambda number: rows.row(order[number % 10], number)


def _batches_of(text: TextRows, answers: InstructionRows, mixture: Mixture) -> Callable[[int], object]:
    """GLM-130B's mixture, micro-batches of one row: from the sample's number to the tensors that training reads."""

    def batch(number: int) -> object:
        draw = mixture.locate(number)
        is_instruction = draw.objective == "instruction"
        return collate([answers.row(draw.ordinal) if is_instruction else text.row(draw.objective, draw.ordinal)])

    return batch


def _seconds_per_row(way: Callable[[int], object], seconds: float) -> float:
    """Rows are built until so much time has gone by, always from the first on; time that this process computed."""
    for number in range(20):
        way(number)
    started, number = time.process_time(), 0
    while time.process_time() - started < seconds:
        for _ in range(20):
            way(number)
            number += 1
    return (time.process_time() - started) / number


def _report(seconds: dict[str, list[float]], sequence: int) -> None:
    print(f"{'rows':<30} {'us a row':>9} {'M tokens/s':>11} {'x plain':>8}")
    for name, taken in seconds.items():
        if not name.endswith("plain"):
            median = statistics.median(taken)
            plain = seconds.get(f"{name}, plain", [])
            ratio = statistics.median(p / t for p, t in zip(plain, taken, strict=True)) if plain else None
            print(
                f"{name:<30} {median * 1e6:>9.0f} {sequence / median / 1e6:>11.1f} "
                f"{f'{ratio:.1f}' if ratio else '-':>8}"
            )


def _config(folder: Path, options: Namespace, *, isolate: bool) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "benchmark",
            "train_samples": 10**9,
            "model": {
                "num_layers": 1,
                "hidden_size": 64,
                "num_attention_heads": 1,
                "ffn_hidden_size": 64,
                "vocab_size": Vocabulary.vocab_size,
                "embedding_gradient_shrink": {"alpha": 0.1},
            },
            "data": {
                "tokenizer": "",
                "sequence_length": options.sequence,
                "isolate_documents": isolate,
                "text": {"text": {"path": str(folder / "text"), "weight": 1.0}},
                "instructions": {"pairs": {"path": str(folder / "pairs"), "weight": 1.0}},
            },
            "objective": {"instruction_share": 0.05, "mask_share": 0.3},
            "batch": {"micro_size": 1, "global_size": 1},
            "optimizer": {"learning_rate": {"peak": 1e-4, "minimum": 1e-5, "warmup_samples": 0, "decay_samples": 1}},
            "precision": {"dtype": "fp32"},
            "parallel": {"tensor": 1, "pipeline": 1},
            "evaluation": {"every_steps": 1, "samples": 1},
            "checkpoint": {"every_steps": 1},
        }
    )


def _options() -> Namespace:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=50_000_000, help="of the corpus")
    parser.add_argument("--document-tokens", type=int, default=1000, help="mean length of a document")
    parser.add_argument("--sequence", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the corpus is written; default: the system's")
    return parser.parse_args()


if __name__ == "__main__":
    main()
