"""Text that no machine's installation can change: a small grammar over invented words, for the golden losses.

Nothing draws here but ``Random.random``, of which alone Python promises the same numbers in every version, and nothing
is computed of them but products, which are the same on every machine.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

DOCUMENTS, SENTENCES_PER_DOCUMENT, PAIRS = 600, 12, 400

NUM_WORDS = {"noun": 2000, "verb": 500, "adjective": 500, "name": 1000}
"""Words of each kind; some are much more frequent than others."""

SENTENCES = (
    "the {adjective} {noun} {verb} the {noun}.",
    "the {noun} of {name} {verb} a {noun}, and {name} {verb} the {noun}.",
    "if a {noun} {verb} {name}, then the {noun} that {verb} {name} is {adjective}.",
    '{name} {verb}: "the {adjective} {noun} is not {adjective}!"',
    "no {noun} {verb} the {noun} of a {noun}.",
)
QUESTION = "{name} {verb} the {noun}. Who {verb} the {noun}?"


def write_corpus(folder: Path) -> tuple[Path, Path]:
    """Write text and instruction pairs as JSON lines; the two files."""
    rng = random.Random(130)
    lexicon = {kind: _words(rng, number) for kind, number in NUM_WORDS.items()}
    text, pairs = folder / "text.jsonl", folder / "pairs.jsonl"
    _write(text, ({"text": _document(rng, lexicon)} for _ in range(DOCUMENTS)))
    _write(pairs, (_pair(rng, lexicon) for _ in range(PAIRS)))
    return text, pairs


def _words(rng: random.Random, number: int) -> list[str]:
    """Different words of two to four syllables."""
    words: dict[str, None] = {}
    while len(words) < number:
        syllables = 2 + int(3 * rng.random())
        words["".join(_one(rng, "bdfgklmnprstvz") + _one(rng, "aeiou") for _ in range(syllables))] = None
    return list(words)


def _document(rng: random.Random, lexicon: dict[str, list[str]]) -> str:
    sentences = (_filled(rng, _one(rng, SENTENCES), lexicon) for _ in range(SENTENCES_PER_DOCUMENT))
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _pair(rng: random.Random, lexicon: dict[str, list[str]]) -> dict[str, str]:
    """A sentence, a question about it, and its answer."""
    words = {kind: _frequent(rng, lexicon[kind]) for kind in lexicon}
    return {"inputs": QUESTION.format(**words), "targets": words["name"]}


def _filled(rng: random.Random, sentence: str, lexicon: dict[str, list[str]]) -> str:
    return re.sub(r"{(\w+)}", lambda blank: _frequent(rng, lexicon[blank[1]]), sentence)


def _one(rng: random.Random, choices: Sequence[str]) -> str:
    return choices[int(len(choices) * rng.random())]


def _frequent(rng: random.Random, words: Sequence[str]) -> str:
    """One of the words, the first ones most often: the cube puts half of all draws on the first eighth."""
    draw = rng.random()
    return words[int(len(words) * draw * draw * draw)]


def _write(path: Path, records: Iterator[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
