"""Turn JSON lines into a tokenised corpus: ``glm130b prepare``."""

import hashlib
import shutil
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from glm130b.config.errors import UserError
from glm130b.data.jsonl import INSTRUCTION_FIELDS, TEXT_FIELDS, read_documents
from glm130b.data.manifest import SPLITS, Inputs, Manifest, SourceFile
from glm130b.data.tokenizer import Tokenizer

_BATCH_DOCUMENTS = 1024


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``glm130b prepare``."""
    parser.add_argument("files", nargs="+", type=Path, help='JSON lines with "text"')
    parser.add_argument("--tokenizer", required=True, type=Path, help="SentencePiece model file")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument(
        "--validation-share", type=_share, default=0.02, help="share of the documents to hold out (0.02)"
    )
    parser.add_argument("--instructions", action="store_true", help='the files have "inputs" and "targets" instead')


def run(arguments: Namespace) -> int:
    """Prepare one corpus and say in one line what it holds."""
    folder: Path = arguments.output
    tokenizer = Tokenizer.load(arguments.tokenizer)
    inputs = Inputs(
        kind="instructions" if arguments.instructions else "text",
        tokenizer=tokenizer.fingerprint,
        validation_share=arguments.validation_share,
        files=_source_files(arguments.files),
    )
    if is_up_to_date(folder, inputs):
        print(f"{folder}: up to date")
        return 0
    try:
        manifest = prepare(folder, inputs, tokenizer)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written ({error.strerror}); name another folder") from error
    held = ", ".join(
        f"{split} {part.documents} documents {part.tokens} tokens" for split, part in manifest.splits.items()
    )
    print(f"{folder}: {held}")
    for split in (split for split, part in manifest.splits.items() if not part.documents):
        print(
            f"warning: {folder}: no {split} documents, and training needs some; give more text or another share",
            file=sys.stderr,
        )
    return 0


def is_up_to_date(folder: Path, inputs: Inputs) -> bool:
    """Whether the folder is whole and was made from these inputs, wherever the files lay."""
    try:
        manifest = Manifest.read(folder)
    except UserError:
        return False
    return manifest.inputs.contents() == inputs.contents() and not manifest.damaged_files(folder)


def prepare(folder: Path, inputs: Inputs, tokenizer: Tokenizer) -> Manifest:
    """Write the corpus; a folder prepared earlier is replaced.

    A text becomes one sequence that ends in [eod]; an instruction becomes two, prompt and answer, and [MASK] in a
    prompt is the special token. Everything is written beside the folder and takes its place at the end, so a run that
    is killed leaves either the old corpus or none. Raises UserError with every bad line, and if the folder holds
    something else.
    """
    if folder.exists() and not (folder / "manifest.json").exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: holds something that is no prepared corpus; name another folder for --output")
    partial, replaced = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "replaced"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        manifest = _written(partial, inputs, tokenizer)
    except BaseException:
        shutil.rmtree(partial)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    return manifest


def _written(folder: Path, inputs: Inputs, tokenizer: Tokenizer) -> Manifest:
    from glm130b.data.corpus import CorpusWriter  # imports Megatron-core, which takes seconds

    files = [Path(file.path) for file in inputs.files]
    problems: list[str] = []
    layout = INSTRUCTION_FIELDS if inputs.kind == "instructions" else TEXT_FIELDS
    documents = read_documents(files, layouts=(layout,), problems=problems)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(CorpusWriter(folder, split=split, vocab_size=tokenizer.vocab_size))
            for split in SPLITS
        }
        while batch := list(islice(documents, _BATCH_DOCUMENTS)):
            if problems:  # read on for more of them, but write no more
                continue
            for (key, *_), sequences in zip(batch, _tokenised(batch, tokenizer), strict=True):
                writers["validation" if _is_held_out(key, inputs.validation_share) else "train"].add(sequences)
    manifest = Manifest(inputs=inputs, splits={split: writer.summary() for split, writer in writers.items()})
    if not problems and not any(split.documents for split in manifest.splits.values()):
        problems.append(f"{', '.join(map(str, files))}: no document in it; write one JSON object on a line")
    if problems:
        raise UserError(problems)
    manifest.write(folder)
    return manifest


def _tokenised(batch: Sequence[tuple[str, ...]], tokenizer: Tokenizer) -> Iterator[list[list[int]]]:
    """The sequences of each document."""
    if len(batch[0]) == len(TEXT_FIELDS):
        for tokens in tokenizer.encode_batch([text for (text,) in batch]):
            yield [[*tokens, tokenizer.special.eod]]
    else:
        for prompt, answer in batch:
            yield [tokenizer.encode_with_blanks(prompt), tokenizer.encode(answer)]


def _is_held_out(text: str, share: float) -> bool:
    """A pure function of the text (of the prompt of an instruction), so that equal texts are on the same side."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") < share * 2**64


def _source_files(files: Iterable[Path]) -> tuple[SourceFile, ...]:
    problems, found = [], []
    for file in files:
        try:
            found.append(SourceFile(path=str(file), sha256=_sha256(file)))
        except OSError as error:
            problems.append(f"{file}: cannot be read ({error.strerror}); name a JSON lines file")
    if problems:
        raise UserError(problems)
    return tuple(found)


def _sha256(file: Path) -> str:
    hashed = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()


def _share(text: str) -> float:
    if not 0 <= (share := float(text)) < 1:
        raise ArgumentTypeError(f"{text} is not from 0 up to, but without, 1")
    return share
