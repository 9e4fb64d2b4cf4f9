"""What the tests of rows share: corpora in memory, rows of them, and the text read back out of a row alone."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from glm130b.data.arrays import Int64Array
from glm130b.data.corpus.corpus import Corpus
from glm130b.data.objectives.row import Row, Segment
from glm130b.data.objectives.sample import Sample
from glm130b.data.objectives.sentences import Sentences
from glm130b.data.objectives.text_rows import TextRows
from glm130b.data.tokenizers.special_tokens import SpecialTokens
from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.harness.synthetic import small_config

FIELDS = ("tokens", "targets", "loss_mask", "positions", "block_positions")


class Stream:
    """A corpus in memory: documents of any ids, one after the other."""

    def __init__(self, documents: Sequence[Sequence[int]]) -> None:
        self.tokens = np.concatenate([np.asarray(document, np.int64) for document in documents])
        self.starts = np.cumsum([0, *map(len, documents[:-1])])
        self.num_tokens = len(self.tokens)

    def read(self, start: int, length: int) -> Int64Array:
        assert 0 <= start <= start + length <= self.num_tokens
        return self.tokens[start : start + length].copy()

    def document_starts(self, start: int, length: int) -> Int64Array:
        return self.starts[(self.starts > start) & (self.starts < start + length)]


class WordTokenizer:
    """A token for every piece of a list, then the special tokens."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = list(pieces)
        self.special = SpecialTokens.after(len(pieces))
        self.vocab_size = len(pieces) + 8

    def piece_bytes(self, token: int) -> bytes:
        return (self.pieces[token] if token < len(self.pieces) else self.special.names()[token]).encode()

    def encode(self, text: str) -> list[int]:
        """The longest piece each time."""
        longest = "|".join(map(re.escape, sorted(self.pieces, key=len, reverse=True)))
        parts: list[str] = re.findall(longest, text)
        assert "".join(parts) == text
        return [self.pieces.index(part) for part in parts]


NUMBERS = WordTokenizer([f" {number}" for number in range(1000)])
"""For texts whose words do not matter: no token ends a sentence."""


def words(*document_tokens: int) -> list[list[int]]:
    """Documents of these lengths; no token twice within a thousand."""
    ends = np.cumsum(document_tokens)
    return [(np.arange(end - length, end) % 1000).tolist() for length, end in zip(document_tokens, ends, strict=True)]


def text_rows(
    documents: Sequence[Sequence[int]],
    *,
    tokenizer: WordTokenizer = NUMBERS,
    seed: int = 7,
    sequence_length: int = 256,
    model: dict[str, Any] | None = None,
    objective: dict[str, Any] | None = None,
    **data: Any,
) -> TextRows:
    """Rows of these documents; by default four samples in 256 tokens, documents apart."""
    config = small_config(
        seed=seed,
        model=model or {},
        data={"sequence_length": sequence_length, **data},
        objective={"instruction_share": 0.0, **(objective or {})},
    )
    corpus, model_file = cast(Corpus, Stream(documents)), cast(Tokenizer, tokenizer)
    return TextRows(
        corpus, config, source="text", split="train", special=model_file.special, sentences=Sentences(model_file)
    )


def segment_targets(row: Row, segment: Segment, special: SpecialTokens) -> Iterator[tuple[int, list[int]]]:
    """Where the blank of each target stands in the context, and what fills it, as they are predicted."""
    split = segment.start + segment.context_length
    opened = [at for at in range(split, segment.end) if row.tokens[at] == special.sop]
    assert opened[0] == split
    for start, end in zip(opened, [*opened[1:], segment.end], strict=True):
        filling = row.targets[start:end].tolist()
        # What was predicted is read next, within a target.
        assert row.tokens[start + 1 : end].tolist() == filling[:-1]
        is_continuation = row.objective == "gmask"
        blank = segment.context_length - 1 if is_continuation else int(row.positions[start])
        yield blank, filling[:-1] if filling[-1] == special.eop else filling


def rebuild(row: Row, segment: Segment, special: SpecialTokens) -> list[int]:
    """The text of a segment: its context with every blank filled by the one target that belongs there."""
    fillings = list(segment_targets(row, segment, special))
    context = row.tokens[segment.start :][: segment.context_length].tolist()
    blank = {"mask": special.mask, "smask": special.smask, "gmask": special.gmask}[row.objective]
    assert sorted(at for at, _ in fillings) == [at for at, token in enumerate(context) if token == blank]
    filled = dict(fillings)
    return [token for at, kept in enumerate(context) for token in filled.get(at, [kept])]


def lists(part: Row | Sample, inside: slice = slice(None)) -> dict[str, list[int]]:
    """The arrays of a row or sample as lists of integers."""
    return {name: getattr(part, name)[inside].astype(int).tolist() for name in FIELDS}


def chi_square(counted: Sequence[int] | NDArray[Any], chances: Sequence[float] | NDArray[Any]) -> float:
    """Pearson's statistic of counts whose chances are known."""
    expected = np.sum(counted) * np.asarray(chances) / np.sum(chances)
    assert expected.min() > 5, "too few draws for the test"
    return float(((np.asarray(counted) - expected) ** 2 / expected).sum())


def chi_square_limit(degrees: int) -> float:
    """What the statistic exceeds once in 10^4 (Wilson and Hilferty 1931: its cube root is nearly normal)."""
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + 3.719 * spread**0.5) ** 3)
