"""Train a SentencePiece tokenizer that gives back every text exactly: ``glm130b tokenizer``."""

import io
import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import sentencepiece

from glm130b.config.errors import UserError
from glm130b.data.jsonl import INSTRUCTION_FIELDS, TEXT_FIELDS, read_documents

# Byte-pair merges see this much text; more changes few of them.
SAMPLE_CHARACTERS = 8_000_000
# SentencePiece leaves out lines of more than 4192 bytes, so long lines are cut for training.
_LINE_CHARACTERS = 1000


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``glm130b tokenizer``."""
    parser.add_argument("files", nargs="+", type=Path, help='JSON lines with "text", or with "inputs" and "targets"')
    parser.add_argument("--output", required=True, type=Path, help="model file to write")
    parser.add_argument(
        "--pieces", required=True, type=_pieces, help="pieces of the model; eight special tokens come on top"
    )
    parser.add_argument(
        "--character-coverage",
        type=_coverage,
        default=0.9995,
        help="share of the text's characters that get a piece; the rarer ones are written in bytes (default 0.9995)",
    )


def run(arguments: Namespace) -> int:
    """Train, write the model and say so in one line."""
    model, sample_share = train(
        arguments.files, pieces=arguments.pieces, character_coverage=arguments.character_coverage
    )
    output: Path = arguments.output
    partial = output.with_name(f".{output.name}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(model)
        partial.replace(output)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror}); name another file") from error
    print(f"{output}: {arguments.pieces} pieces, trained on {sample_share:.0%} of the text")
    return 0


def train(files: Sequence[Path], *, pieces: int, character_coverage: float = 0.9995) -> tuple[bytes, float]:
    """A serialised SentencePiece model of exactly ``pieces`` pieces, and the share of the lines it was trained on.

    Byte-pair encoding with byte fallback, nothing normalised, no space added or taken away, newline a piece of its
    own. Of a text of more than ``SAMPLE_CHARACTERS`` every n-th line is used, so each file gives its share. Equal
    files give equal models. Raises UserError for bad lines and for a text too small for the vocabulary.
    """
    problems: list[str] = []
    num_characters = sum(map(len, _lines(files, problems)))
    if problems:
        raise UserError(problems)
    every = max(1, math.ceil(num_characters / SAMPLE_CHARACTERS))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=islice(_lines(files, problems), 0, None, every),
            model_writer=model,
            model_type="bpe",
            vocab_size=pieces,
            hard_vocab_limit=True,
            byte_fallback=True,
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n"],
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).rpartition("] ")[2].rstrip(".")  # without the place in its source
        raise UserError(
            f"--pieces: {pieces} do not fit {num_characters} characters of text (SentencePiece: {reason}); "
            "write another number or give more text"
        ) from None
    return model.getvalue(), 1 / every


def _lines(files: Sequence[Path], problems: list[str]) -> Iterator[str]:
    for document in read_documents(files, layouts=(TEXT_FIELDS, INSTRUCTION_FIELDS), problems=problems):
        for text in document:
            for line in text.split("\n"):
                yield from (line[start : start + _LINE_CHARACTERS] for start in range(0, len(line), _LINE_CHARACTERS))


def _pieces(text: str) -> int:
    if (number := int(text)) < 1:
        raise ArgumentTypeError(f"{text} is less than 1")
    return number


def _coverage(text: str) -> float:
    if not 0.9 <= (share := float(text)) <= 1:
        raise ArgumentTypeError(f"{text} is not from 0.9 to 1")
    return share
