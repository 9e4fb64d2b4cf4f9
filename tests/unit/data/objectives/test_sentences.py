"""Sentences of English and Chinese in tokens, and blanks that are whole sentences."""

from collections import Counter
from itertools import accumulate, pairwise
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm130b.config.sections import MaskConfig
from glm130b.data.objectives.pieces import Pieces, Stretch
from glm130b.data.objectives.sentences import SENTENCE_TOKENS, Sentences, most_sentences
from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.unit.data.objectives.rows import (
    Stream,
    WordTokenizer,
    chi_square,
    chi_square_limit,
    rebuild,
    segment_targets,
    text_rows,
)

WORDS = WordTokenizer(
    [
        *("a", " a", " A", "A", " e", "g", "3", " 3", "14", "天", "地", " 天", ",", "，", "(", " (", "“", "「"),
        *(".", "!", "?", ". ", '."', "...", " .", "…", "。", "！", "？", "；", "。”", "?!", ".)", "e.g."),
        *(")", '"', "'", "”", "’", "」", "）", ' "', '" ', " ", "  ", "\n", ".\n", "\n\n", "\n  ", "。\n"),
    ]
)
SENTENCES = Sentences(cast(Tokenizer, WORDS))
EOD = WORDS.special.eod


def stretch(tokens: list[int], *document_ends: int) -> Stretch:
    return Stretch(0, np.array(tokens), [*document_ends, len(tokens)])


def split(text: str) -> list[str]:
    """The sentences of a document, found in its tokens."""
    tokens = [EOD, *WORDS.encode(text), EOD]
    starts, ends = SENTENCES.find(stretch(tokens))
    sentences = [tokens[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return ["".join(map(WORDS.pieces.__getitem__, sentence)) for sentence in sentences if sentence[0] != EOD]


@pytest.mark.parametrize(
    "sentences",
    [
        ["A a a!", " A a?", " A.)", " A"],
        ["A 3.14 a. ", "A a, e.g. a a. ", "3 a."],
        ["A e.g. a (a). ", "(A a.)", " A"],
        ['"A a."', ' "A a."', " A"],
        ["A a... a a...", " A a.\n", "A\n\n", "A a\n  ", "A"],
        ["天地。", "天，地！", "天地？", "「天地。」", "“天地。”", "天；", "天…", "地"],
        ["天3.14地。\n", "“天地？！”", "天地"],
        ["天地……", "A a?!", " A!!!", " 天地。", "A a. ", " A"],
        ["A\n", '"A a."', " A\n", '"A" a'],
        ["A (a a!)", " A .", " A"],
        ["A a. ", "“A a.”", " A"],
    ],
)
def test_a_text_is_cut_into_its_sentences(sentences: list[str]) -> None:
    assert split("".join(sentences)) == sentences


@pytest.mark.parametrize("text", ["A", "A a, a 3.14", "a.a", "A a. a", "A a.” a"])
def test_no_end_of_a_sentence(text: str) -> None:
    assert split(text) == [text]


def test_an_end_of_a_document_is_an_end_with_or_without_a_mark() -> None:
    tokens = WORDS.encode("A a a A 天 天")
    starts, ends = SENTENCES.find(stretch(tokens, 2, 5))
    assert (starts.tolist(), ends.tolist()) == ([2], [5])  # what the stretch cuts off is not whole
    tokens[3] = EOD
    starts, ends = SENTENCES.find(stretch(tokens))
    assert [(start, end) for start, end in zip(starts, ends, strict=True) if tokens[start] != EOD] == []


def test_a_text_of_white_space_has_no_sentence() -> None:
    for text in (" ", " \n \n", "\n"):
        assert split(text) in ([], [text])


def text_of(lengths: list[int]) -> list[int]:
    """A document of sentences of these many tokens, closed by [eod]."""
    return [token for length in lengths for token in [*WORDS.encode("天" * (length - 1)), *WORDS.encode("。")]] + [EOD]


def drawn(
    tokens: list[int], pieces: list[tuple[int, int]], *, most: int = 1000, coverage: float = 0.15, seed: int = 0
) -> list[list[tuple[int, int]]]:
    """By piece of the text, given as start and length: half-open blanks, counted in the text."""
    starts, lengths = np.array(pieces).T
    spans = SENTENCES.draw_spans(
        np.random.default_rng(seed),
        stretch(tokens, *(start for start, _ in pieces[1:])),
        Pieces(starts, lengths, np.zeros_like(starts)),
        most=np.full(len(pieces), most),
        coverage=coverage,
    )
    assert spans.piece.tolist() == sorted(spans.piece.tolist())
    blanks: list[list[tuple[int, int]]] = [[] for _ in pieces]
    for piece, start, length in zip(*(part.tolist() for part in spans), strict=True):
        blanks[piece].append((pieces[piece][0] + start, pieces[piece][0] + start + length))
    return blanks


@given(
    st.lists(st.lists(st.integers(2, 30), max_size=20), min_size=1, max_size=6),
    st.integers(0, 1000),
    st.integers(1, 8),
    st.floats(0.05, 0.5),
)
def test_blanks_are_whole_sentences_that_do_not_touch(
    documents: list[list[int]], seed: int, most: int, coverage: float
) -> None:
    texts = [text_of(lengths) for lengths in documents]
    starts = list(accumulate(map(len, texts), initial=0))
    tokens = [token for text in texts for token in text]
    blanks = drawn(tokens, list(zip(starts, map(len, texts), strict=False)), most=most, coverage=coverage, seed=seed)
    for number, (start, lengths) in enumerate(zip(starts, documents, strict=False)):
        edges = list(accumulate(lengths, initial=start))
        # The beginning of the stretch is the beginning of no sentence that we know of.
        whole = list(pairwise(edges))[number == 0 :]
        assert 1 <= len(blanks[number]) <= most
        if whole:
            assert set(blanks[number]) <= set(whole)
            assert all(end < after for (_, end), (after, _) in pairwise(blanks[number]))
            covered = [end - start for start, end in blanks[number]]
            assert len(covered) == 1 or sum(covered) - max(covered) / 2 <= coverage * len(texts[number])
        else:
            ((first, last),) = blanks[number]
            assert start <= first < last <= start + len(texts[number])
            assert last - first == max(1, np.ceil(coverage * len(texts[number])))


def test_about_the_share_of_a_text_is_blanked() -> None:
    rng, tokens, pieces = np.random.default_rng(3), [EOD], []
    for _ in range(600):
        text = text_of(rng.integers(5, 40, size=22).tolist())
        pieces.append((len(tokens), len(text)))
        tokens += text
    blanks = drawn(tokens, pieces)
    shares = [
        sum(end - start for start, end in piece) / length for piece, (_, length) in zip(blanks, pieces, strict=True)
    ]
    assert np.mean(shares) == pytest.approx(0.15, abs=0.005)
    assert min(shares) > 0.1


def test_no_sentence_is_preferred() -> None:
    """Not even the first or the last, which have one neighbour less to touch."""
    draws, text = 4000, text_of([10] * 9)
    tokens = [EOD, *text * draws]
    pieces = [(1 + len(text) * number, len(text)) for number in range(draws)]
    blanks = drawn(tokens, pieces, coverage=0.4)
    counts = Counter((start - pieces[number][0]) // 10 for number, piece in enumerate(blanks) for start, _ in piece)
    assert chi_square([counts[sentence] for sentence in range(9)], [1] * 9) < chi_square_limit(8)


def test_a_piece_without_a_whole_sentence_has_one_blank_anywhere() -> None:
    starts = [drawn(WORDS.encode("天" * 20), [(0, 20)], seed=seed)[0] for seed in range(900)]
    assert all(len(piece) == 1 and piece[0][1] - piece[0][0] == 3 for piece in starts)
    counts = Counter(piece[0][0] for piece in starts)
    assert chi_square([counts[start] for start in range(18)], [1] * 18) < chi_square_limit(17)


def test_room_is_kept_for_short_sentences() -> None:
    mask = MaskConfig()
    most = most_sentences(512, mask)
    assert most[:8].tolist() == [1] * 8
    assert most[500] == np.ceil(75 / SENTENCE_TOKENS)
    assert (np.diff(most) >= 0).all()


def test_rows_of_sentences() -> None:
    """Documents of sentences of 12 tokens: every target is one, and [sMASK] stands for it."""
    documents = [text_of([12] * count) for count in (150, 2, 30, 200, 9)]
    rows = text_rows(documents, tokenizer=WORDS, objective={"mask": {"short_text_share": 0.0}})
    stream, (end,) = Stream(documents), WORDS.encode("。")
    whole = 0
    for ordinal in range(3 * rows.rows_per_epoch):
        row = rows.row("smask", ordinal)
        assert row.objective == "smask"
        assert not (row.tokens == WORDS.special.mask).any()
        for segment, origin in zip(row.segments, row.origins, strict=True):
            assert rebuild(row, segment, WORDS.special) == stream.read(*origin).tolist()
            if origin.length >= 24:  # there is a whole sentence, wherever the piece begins
                blanks = list(segment_targets(row, segment, WORDS.special))
                assert all(len(filled) == 12 and filled.index(end) == 11 for _, filled in blanks)
                whole += len(blanks)
    assert whole > 100
