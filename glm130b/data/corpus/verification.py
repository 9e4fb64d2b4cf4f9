"""Is a corpus on disk what it should be: ``glm130b verify``."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from glm130b.config.errors import UserError
from glm130b.data.corpus.checks import (
    MEND,
    Advance,
    content_problems,
    index_problems,
    origin_problems,
    size_problems,
    token_problems,
)
from glm130b.data.corpus.corpus import is_bare
from glm130b.data.corpus.indexed_dataset import IndexedDataset
from glm130b.data.corpus.manifest import SPLITS, Manifest, Split
from glm130b.data.corpus.origins import Origins
from glm130b.data.corpus.writer import SEQUENCES_PER_DOCUMENT
from glm130b.data.tokenizers.tokenizer import Tokenizer


class Verdict(NamedTuple):
    """What is known of a corpus that was read to its last byte."""

    problems: list[str]
    """All that is wrong with it."""
    contents: str = ""
    """What a whole one holds, in words."""


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``glm130b verify``."""
    parser.add_argument(
        "corpora",
        nargs="+",
        type=Path,
        metavar="CORPUS",
        help="folder of `glm130b prepare`, or the name that a Megatron .bin and its .idx share",
    )
    parser.add_argument("--tokenizer", type=Path, help="tokenizer that the corpora must have been made with")


def run(arguments: Namespace) -> int:
    """Check every corpus and say in one line what it holds or how bad it is; then raise UserError with all problems."""
    tokenizer = Tokenizer.load(arguments.tokenizer) if arguments.tokenizer else None
    problems: list[str] = []
    total = sum(file.stat().st_size for path in arguments.corpora for file in _files(path))
    with tqdm(total=total, unit="B", unit_scale=True, disable=None) as bar:
        for path in arguments.corpora:
            found = verify(path, tokenizer=tokenizer, advance=bar.update)
            state = f"damaged, problems: {len(found.problems)}" if found.problems else f"whole, {found.contents}"
            bar.write(f"{path}: {state}")
            problems += found.problems
    if problems:
        raise UserError(problems)
    return 0


def verify(path: Path, *, tokenizer: Tokenizer | None = None, advance: Advance = lambda read: None) -> Verdict:
    """Check a corpus from its manifest to the last token; of a Megatron dataset, what can be known.

    Reads every byte once, in bounded memory; ``advance`` is told how many bytes more were read.
    """
    try:
        if is_bare(path):
            vocab_size = tokenizer.vocab_size if tokenizer else None
            return _verify_bare(path, vocab_size=vocab_size, advance=advance)
        manifest = Manifest.read(path)
        problems = list(_manifest_problems(path, manifest, tokenizer=tokenizer))
        for split in SPLITS:
            problems += _split_problems(path, manifest, split=split, advance=advance)
    except UserError as error:
        return Verdict(list(error.problems))
    except OSError as error:
        return Verdict([f"{error.filename or path}: cannot be read ({error.strerror or error}); {MEND}"])
    parts = manifest.splits.items()
    held = (f"{split} {part.documents} documents {part.tokens} tokens" for split, part in parts)
    return Verdict(problems, ", ".join(held))


def _verify_bare(path: Path, *, vocab_size: int | None, advance: Advance) -> Verdict:
    """Its highest id is told too: nothing else says which tokenizer it was made with."""
    highest = -1

    def see(tokens: NDArray[np.integer]) -> None:
        nonlocal highest
        highest = max(highest, int(tokens.max()))

    dataset = IndexedDataset(path)
    problems = [
        *index_problems(dataset),
        *token_problems(dataset, vocab_size=vocab_size, eod=None, sha256=None, advance=advance, see=see),
    ]
    ids = f", highest id {highest}" if dataset.num_tokens else ""
    return Verdict(problems, f"{dataset.num_documents} documents {dataset.num_tokens} tokens{ids}")


def _manifest_problems(folder: Path, manifest: Manifest, *, tokenizer: Tokenizer | None) -> Iterator[str]:
    """The manifest agrees with itself and with the tokenizer."""
    inputs = manifest.inputs
    if tokenizer and (tokenizer.fingerprint, tokenizer.vocab_size) != (inputs.tokenizer, inputs.vocab_size):
        yield (
            f"{folder}: was prepared with another tokenizer (SHA-256 {inputs.tokenizer[:12]}.., {inputs.vocab_size} "
            f"ids; not {tokenizer.fingerprint[:12]}.., {tokenizer.vocab_size} ids); name that one, or prepare again"
        )
    counts = (len(manifest.sources), sum(source.documents for source in manifest.sources))
    if counts != (len(inputs.files), sum(part.documents for part in manifest.splits.values())):
        yield f"{folder}: its manifest counts other documents by file than by split; {MEND}"


def _split_problems(folder: Path, manifest: Manifest, *, split: Split, advance: Advance) -> Iterator[str]:
    """The three files of a split are there and hold what the manifest says."""
    names = [f"{split}{suffix}" for suffix in (".bin", ".idx", ".origins")]
    if set(manifest.splits[split].files) != set(names):
        yield f"{folder}: its manifest does not list {', '.join(names)}; {MEND}"
        return
    part, inputs = manifest.splits[split], manifest.inputs
    bin_file, idx_file, origins_file = (folder / name for name in names)
    absent = {file: list(size_problems(file, part.files[file.name])) for file in (bin_file, idx_file, origins_file)}
    for found in absent.values():
        yield from found
    if not absent[origins_file]:
        yield from content_problems(origins_file, part.files[origins_file.name], advance=advance)
        yield from origin_problems(Origins(origins_file), num_documents=part.documents, num_files=len(inputs.files))
    if not absent[idx_file]:
        yield from content_problems(idx_file, part.files[idx_file.name], advance=advance)
    try:
        dataset = IndexedDataset(folder / split)
    except UserError as error:
        if not absent[bin_file] and not absent[idx_file]:  # else it is said already
            yield from error.problems
        if not absent[bin_file]:
            yield from content_problems(bin_file, part.files[bin_file.name], advance=advance)
        return
    if (dataset.num_documents, dataset.num_tokens) != (part.documents, part.tokens):
        yield (
            f"{folder / split}: holds {dataset.num_documents} documents and {dataset.num_tokens} tokens, the manifest "
            f"says {part.documents} and {part.tokens}; {MEND}"
        )
    bad_index = list(index_problems(dataset, sequences_per_document=SEQUENCES_PER_DOCUMENT[inputs.kind]))
    yield from bad_index
    yield from token_problems(
        dataset,
        vocab_size=inputs.vocab_size,
        eod=inputs.eod if inputs.kind == "text" and not bad_index else None,
        sha256=part.files[bin_file.name].sha256,
        advance=advance,
    )


def _files(path: Path) -> list[Path]:
    """The files that will be read, as far as they are there."""
    if is_bare(path):
        return [file for file in (path.with_name(f"{path.name}.bin"),) if file.exists()]
    suffixes = (".bin", ".idx", ".origins")
    return [file for split in SPLITS for suffix in suffixes if (file := path / f"{split}{suffix}").exists()]
