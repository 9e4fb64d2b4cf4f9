"""Write the demo corpus: English, code, Chinese and questions, from text that every machine with Python has.

    python tools/demo_corpus.py data/demo/text

The folder gets ``english.jsonl`` (docstrings and the language reference), ``code.jsonl`` (sources of the standard
library), ``chinese.jsonl`` (``tools/demo/chinese.txt``) with one ``{"text": ...}`` a line, and ``facts.jsonl`` with one
``{"inputs": ..., "targets": ...}`` a line. No network; the same Python version writes the same bytes.
"""

import argparse
import ast
import io
import itertools
import json
import random
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from demo_facts import instruction_pairs
from demo_sources import Module, definitions, read_modules, read_topics, standard_library_folder

from glm130b.config.errors import UserError

LONGEST_DOCUMENT = 4_000  # characters
SHORTEST_TEXT = 40  # characters; below it a docstring or a leftover of a file teaches nothing
CODE_CHARACTERS = 3_000_000
CHINESE = Path(__file__).parent / "demo" / "chinese.txt"

Record = dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the four files, print a line for each, and return the exit status: 2 after a mistake of the user's."""
    parser = argparse.ArgumentParser(description="Write the demo corpus from the standard library's text.")
    parser.add_argument("output_folder", type=Path, help="where the four .jsonl files go; made if it is not there")
    folder: Path = parser.parse_args(arguments).output_folder
    try:
        write_corpus(folder, library=standard_library_folder())
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


def write_corpus(folder: Path, *, library: Path) -> None:
    """Write the corpus made from the standard library in ``library`` to ``folder``; raises UserError."""
    modules, topics = read_modules(library), read_topics(library)
    if not topics:
        print("pydoc_data/topics.py is not installed: english.jsonl holds docstrings only")
    write_records(folder / "english.jsonl", _texts(english_documents(modules, topics)))
    write_records(folder / "code.jsonl", _texts(code_documents(modules)))
    write_records(folder / "chinese.jsonl", _texts(CHINESE.read_text(encoding="utf-8").strip().split("\n\n")))
    pairs = instruction_pairs(modules)
    write_records(folder / "facts.jsonl", [{"inputs": inputs, "targets": targets} for inputs, targets in pairs])


def english_documents(modules: Iterable[Module], topics: dict[str, str]) -> Iterator[str]:
    """The language reference, then each module's docstrings under their dotted names; no docstring comes twice."""
    for topic in sorted(topics):
        yield from split_prose(unwrapped(topics[topic]))
    seen: set[str] = set()
    for module in modules:
        tree = module.tree()
        sections = []
        for name, node in [(module.name, tree), *definitions(tree.body, module.name)]:
            docstring = ast.get_docstring(node)
            if docstring and len(docstring) >= SHORTEST_TEXT and docstring not in seen:
                seen.add(docstring)
                sections.append(f"{name}\n{docstring}")
        yield from split_prose(unwrapped("\n\n".join(sections)))


def code_documents(modules: Sequence[Module]) -> Iterator[str]:
    """Whole modules in a fixed shuffled order, passing over those that no longer fit into ``CODE_CHARACTERS``."""
    left = CODE_CHARACTERS
    for module in random.Random(0).sample(modules, len(modules)):
        if len(module.source) <= left:
            left -= len(module.source)
            yield from split_code(module)


def unwrapped(text: str) -> str:
    """The text with its paragraphs on one line: a line end that only wraps prose is a space."""
    return re.sub(r"(?m)^(\S.{45,})\n(?=[\w\"'(`*])", r"\1 ", text)


def split_prose(text: str) -> Iterator[str]:
    """The text in documents that end, where they can, with a paragraph."""
    paragraphs = re.split(r"(?<=\n\n)(?!\n)", text)
    return documents(piece for paragraph in paragraphs for piece in fitting(paragraph))


def split_code(module: Module) -> Iterator[str]:
    """The source in documents that end, where they can, with a top-level statement."""
    lines = io.StringIO(module.source).readlines()
    return documents(code_pieces(lines, module.tree().body))


def code_pieces(lines: Sequence[str], body: Sequence[ast.stmt], start: int = 0) -> Iterator[str]:
    """Lines from index ``start`` on, cut after each statement of ``body``, and inside it if it is too long.

    The pieces joined are the lines again: comments go with the statement that follows them.
    """
    for index, statement in enumerate(body):
        end = len(lines) if index + 1 == len(body) else statement.end_lineno or start
        piece = "".join(lines[start:end])
        inner = getattr(statement, "body", [])
        if len(piece) > LONGEST_DOCUMENT and inner:
            yield from code_pieces(lines[:end], inner, start)
        else:
            yield from fitting(piece)
        start = end
    if not body:
        yield from fitting("".join(lines[start:]))


def fitting(piece: str) -> Iterator[str]:
    """The piece itself, or if it is longer than a document its lines, cut where even a line is too long."""
    if len(piece) <= LONGEST_DOCUMENT:
        yield piece
        return
    for line in io.StringIO(piece):
        for start in range(0, len(line), LONGEST_DOCUMENT):
            yield line[start : start + LONGEST_DOCUMENT]


def documents(pieces: Iterable[str]) -> Iterator[str]:
    """Successive pieces joined up to ``LONGEST_DOCUMENT`` characters, without blank ends and without scraps."""
    document = ""
    for piece in itertools.chain(pieces, [None]):
        if piece is not None and len(document) + len(piece) <= LONGEST_DOCUMENT:
            document += piece
            continue
        text = document.strip("\n").rstrip()
        if len(text) >= SHORTEST_TEXT:
            yield text
        document = piece or ""


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write one JSON object a line under a temporary name, move it into place, print a line; raises UserError."""
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give a folder that you may write to") from error
    characters = sum(len(text) for record in records for text in record.values())
    print(f"{path}: {len(records):,} documents, {characters:,} characters")


def _texts(texts: Iterable[str]) -> list[Record]:
    return [{"text": text} for text in texts]


if __name__ == "__main__":
    sys.exit(main())
