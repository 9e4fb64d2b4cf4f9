"""Train a SentencePiece tokenizer that gives back every text exactly: ``glm130b tokenizer train``."""

import io
import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import sentencepiece

from glm130b.config.errors import UserError
from glm130b.data.reading.documents import INSTRUCTION_FIELDS, read_documents
from glm130b.data.reading.formats import find_files
from glm130b.data.reading.pieces import Reading

MODEL_TYPES = ("bpe", "unigram")
SAMPLE_CHARACTERS = 8_000_000
# SentencePiece leaves out lines of more than 4192 bytes, so long lines are cut for training.
_LINE_CHARACTERS = 1000


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``glm130b tokenizer train``."""
    parser.add_argument("files", nargs="+", help="files, folders or globs of texts, in any format that `prepare` reads")
    parser.add_argument("--output", required=True, type=Path, help="model file to write")
    parser.add_argument(
        "--pieces", required=True, type=_positive, help="pieces of the model; eight special tokens come on top"
    )
    parser.add_argument(
        "--model-type",
        choices=MODEL_TYPES,
        default="bpe",
        help="merged pairs, or the likeliest split, which trains longer and in more memory (default bpe)",
    )
    parser.add_argument(
        "--character-coverage",
        type=_coverage,
        default=0.9995,
        help="share of the text's characters that get a piece; the rarer ones are written in bytes (default 0.9995)",
    )
    parser.add_argument(
        "--sample-characters",
        type=_positive,
        default=SAMPLE_CHARACTERS,
        help=f"of more text than this only a sample is learned from (default {SAMPLE_CHARACTERS:,})",
    )
    parser.add_argument("--text-field", default="text", help="field of a record that holds its text (default text)")


def run(arguments: Namespace) -> int:
    """Train, write the model and say so in one line."""
    model, sample_share = train(
        find_files(arguments.files),
        pieces=arguments.pieces,
        model_type=arguments.model_type,
        character_coverage=arguments.character_coverage,
        sample_characters=arguments.sample_characters,
        text_field=arguments.text_field,
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


def train(
    files: Sequence[Path],
    *,
    pieces: int,
    model_type: str = "bpe",
    character_coverage: float = 0.9995,
    sample_characters: int = SAMPLE_CHARACTERS,
    text_field: str = "text",
) -> tuple[bytes, float]:
    """A serialised SentencePiece model of exactly ``pieces`` pieces, and the share of the lines it was trained on.

    Byte fallback, nothing normalised, no space added or taken away, newline a piece of its own. ``model_type`` is one
    of ``MODEL_TYPES``. Of a text of more than ``sample_characters`` every n-th line is used, so each file gives its
    share. Equal files give equal models. Raises UserError for bad lines and for a text too small for the vocabulary.
    """
    problems: list[str] = []
    num_characters = sum(map(len, _lines(files, text_field, problems)))
    if problems:
        raise UserError(problems)
    if not num_characters:
        raise UserError(f"{', '.join(map(str, files))}: no text in it; name files with text to learn from")
    every = max(1, math.ceil(num_characters / sample_characters))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=islice(_lines(files, text_field, problems), 0, None, every),
            model_writer=model,
            model_type=model_type,
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


def _lines(files: Sequence[Path], text_field: str, problems: list[str]) -> Iterator[str]:
    layouts, reading = ((text_field,), INSTRUCTION_FIELDS), Reading(text_field=text_field)
    for document in read_documents(files, layouts=layouts, problems=problems, reading=reading):
        for text in document:
            for line in text.split("\n"):
                yield from (line[start : start + _LINE_CHARACTERS] for start in range(0, len(line), _LINE_CHARACTERS))


def _positive(text: str) -> int:
    with suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise ArgumentTypeError(f"{text} is no whole number from 1 on")


def _coverage(text: str) -> float:
    with suppress(ValueError):
        if 0.9 <= (share := float(text)) <= 1:
            return share
    raise ArgumentTypeError(f"{text} is no number from 0.9 to 1")
