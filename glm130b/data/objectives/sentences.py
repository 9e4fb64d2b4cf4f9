"""[sMASK] blanks: whole sentences of English and Chinese, found in tokens (GLM paper, section 2.1).

What a token says about sentences is read from its bytes once; a text is then cut by array operations on its ids. A
sentence ends

- after ``。！？；…`` and after a newline, always;
- after ``. ! ?`` where a space or newline follows, or the text ends, and the next word does not begin with a lower-case
  letter: neither in ``3.14`` nor after ``e.g.`` in ``e.g. this``;
- where its document ends.

Quotes and brackets that close right there, and the white space after them, belong to the sentence. Sentences are made
of whole tokens: an end inside a token, or one that is spelled in single bytes, is not seen.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm130b.config.sections import MaskConfig
from glm130b.data.arrays import BoolArray, Int64Array
from glm130b.data.objectives.pieces import Pieces, Stretch
from glm130b.data.objectives.spans import Spans, uniform
from glm130b.data.tokenizers.tokenizer import Tokenizer

# Room is kept for sentences of this many tokens on average; where they are shorter, they may cover less than their
# share of the text.
SENTENCE_TOKENS = 5

_ENDS = "。！？；…"
_MAY_END = ".!?"
_CLOSES = """"'”’»›)]}）］｝」』】》〉"""


class Sentences:
    """The sentences of texts of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def find(self, stretch: Stretch) -> tuple[Int64Array, Int64Array]:
        """First token of each whole sentence of the stretch, and the token after it; no [eod] is in one."""
        tokens = stretch.tokens
        ends, may_end, is_space, is_marks, opens_with_space, closes_with_space, is_lower = self._properties[:, tokens]
        after_space = np.concatenate(([False], closes_with_space[:-1]))
        # Marks and white space belong to the word before them; only marks after white space open what follows.
        words = np.flatnonzero(~(is_space | is_marks & ~after_space))
        following = np.append(words[1:], len(tokens))
        may_follow = np.append((after_space | opens_with_space) & ~is_lower, True)[following]
        is_end = np.logical_or.reduceat(ends, words) | np.logical_or.reduceat(may_end, words) & may_follow
        eods = np.flatnonzero(tokens == self._tokenizer.special.eod)
        documents = np.array(stretch.ends[:-1], np.int64)
        edges = np.unique(np.concatenate((following[is_end], eods, eods + 1, documents)))
        starts, stops = edges[:-1], edges[1:]
        is_text = tokens[starts] != self._tokenizer.special.eod
        return starts[is_text], stops[is_text]

    @cached_property
    def _properties(self) -> BoolArray:
        """By property and token. Made by the first text, because few runs have [sMASK] and a large vocabulary takes
        half a second."""
        pieces = (self._tokenizer.piece_bytes(token) for token in range(self._tokenizer.vocab_size))
        return np.array([_properties(piece.decode(errors="ignore")) for piece in pieces]).T.copy()

    def draw_spans(
        self, rng: np.random.Generator, stretch: Stretch, pieces: Pieces, *, most: Int64Array, coverage: float
    ) -> Spans:
        """Sentences of each piece that do not touch, as near to ``coverage`` of it as can be; one at least.

        None of the pieces gets more than ``most`` [P]. A piece without a whole sentence gets one blank that covers its
        share, wherever in it.
        """
        starts, ends = self.find(stretch)
        piece = pieces.start.searchsorted(starts, side="right") - 1
        is_inside = (piece >= 0) & (ends <= (pieces.start + pieces.length)[piece])
        piece, starts, lengths = piece[is_inside], starts[is_inside], (ends - starts)[is_inside]
        due = coverage * pieces.length
        chosen = _chosen(rng, piece, lengths, due=due, most=most)

        without = np.flatnonzero(np.bincount(piece, minlength=len(due)) == 0)
        blanked = np.maximum(1, np.ceil(due[without])).astype(np.int64)
        anywhere = uniform(rng, np.zeros_like(without), pieces.length[without] - blanked)
        owner = np.concatenate((piece[chosen], without))
        rising = owner.argsort(kind="stable")
        return Spans(
            owner[rising],
            np.concatenate((starts[chosen] - pieces.start[piece[chosen]], anywhere))[rising],
            np.concatenate((lengths[chosen], blanked))[rising],
        )


def most_sentences(longest: int, mask: MaskConfig) -> Int64Array:
    """How many sentences may be blanked in a piece of 0, 1, .. ``longest`` tokens; int64 [longest + 1]."""
    shares = np.ceil(mask.coverage * np.arange(longest + 1) / SENTENCE_TOKENS)
    return np.maximum(1, shares).astype(np.int64)


def _properties(text: str) -> list[bool]:
    """What ``find`` asks of a token: whether it ends a sentence, may end one, is white space, is nothing but marks,
    opens with white space, closes with it, and whether its first word begins in lower case."""
    ink, space = text.rstrip(), text[len(text.rstrip()) :]
    marked = ink.rstrip(_CLOSES)
    return [
        marked.endswith(tuple(_ENDS)) or "\n" in space,
        marked.endswith(tuple(_MAY_END)),
        bool(space) and not ink,
        bool(ink) and not ink.strip(_ENDS + _MAY_END + _CLOSES),
        text[:1].isspace(),
        bool(space),
        text.lstrip()[:1].islower(),
    ]


def _chosen(
    rng: np.random.Generator,
    piece: Int64Array,
    lengths: Int64Array,
    *,
    due: NDArray[np.floating[Any]],
    most: Int64Array,
) -> Int64Array:
    """Which of the sentences are blanked, rising.

    Every sentence gets a random key, and one whose key is below those of both neighbours may be taken, so that no two
    touch; the first and the last of a piece count as neighbours too, so that no sentence is preferred. They are taken
    in the order of their keys until the next would bring the piece further from its due than it is.
    """
    index, keys = np.arange(len(piece)), rng.random(len(piece))
    first, last = piece.searchsorted(piece), piece.searchsorted(piece, side="right") - 1
    before, after = np.where(index == first, last, index - 1), np.where(index == last, first, index + 1)
    lowest = np.flatnonzero((keys <= keys[before]) & (keys <= keys[after]))
    taken = lowest[(keys + piece)[lowest].argsort()]
    piece, covered = piece[taken], lengths[taken].cumsum()
    first = piece.searchsorted(piece)
    middle = covered - (covered - lengths[taken])[first] - lengths[taken] / 2
    rank = np.arange(len(taken)) - first
    return np.sort(taken[(rank == 0) | (middle <= due[piece]) & (rank < most[piece])])
