"""Rows of texts: the text can be read back out of them, documents stay apart, and all that is drawn follows its law."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm130b.config.errors import UserError
from glm130b.data.objectives.row import Row
from glm130b.data.objectives.spans import most_spans
from glm130b.data.objectives.text_rows import TextRows
from tests.unit.data.objectives.rows import (
    NUMBERS,
    Stream,
    chi_square,
    chi_square_limit,
    lists,
    rebuild,
    segment_targets,
    text_rows,
    words,
)

SPECIAL = NUMBERS.special
OBJECTIVES = ("mask", "smask", "gmask")


def assert_sound(row: Row, stream: Stream, *, slot_tokens: int, isolated: bool) -> None:
    """All that must hold of any row that is not cut, read from the row and the corpus alone."""
    assert row.segments
    assert len(row.origins) == len(row.segments)
    tokens = np.arange(len(row.tokens))
    inside, targets = np.zeros(len(tokens), np.bool_), np.zeros(len(tokens), np.bool_)
    end = read = -1
    for segment, origin in zip(row.segments, row.origins, strict=True):
        assert segment.start >= end  # segments do not overlap
        assert segment.start // slot_tokens == (segment.end - 1) // slot_tokens
        assert segment.target_length > 0
        assert origin.start >= read  # no text is used twice
        if isolated:
            assert not len(stream.document_starts(*origin))
        split, end, read = segment.start + segment.context_length, segment.end, origin.start + origin.length
        inside[segment.start : end] = targets[split:end] = True
        assert rebuild(row, segment, SPECIAL) == stream.read(*origin).tolist()
        assert row.positions[segment.start : split].tolist() == list(range(segment.context_length))
        assert row.targets[segment.start : split].tolist() == row.tokens[segment.start : split].tolist()
        counted = [
            number for _, filling in segment_targets(row, segment, SPECIAL) for number in range(1, len(filling) + 2)
        ]
        if row.objective == "gmask":
            counted = list(range(1, segment.target_length + 1))
            assert row.positions[split:end].tolist() == list(range(segment.context_length, end - segment.start))
        else:
            assert (row.targets[split:end] == SPECIAL.eop).sum() == counted.count(1)
        assert row.block_positions[split:end].tolist() == counted
    assert np.array_equal(row.loss_mask, targets)
    for values in lists(row).values():
        assert not np.array(values)[~inside].any()


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=30).filter(lambda lengths: sum(lengths) >= 255),
    st.sampled_from(OBJECTIVES),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10_000),
)
def test_any_row_of_any_documents_is_sound(
    documents: list[int], objective: str, isolated: bool, end_of_piece: bool, ordinal: int
) -> None:
    rows = text_rows(words(*documents), isolate_documents=isolated, objective={"gmask": {"end_of_piece": end_of_piece}})
    row = rows.row(objective, ordinal)
    slot_tokens = 256 if objective == "gmask" else 64
    assert_sound(row, Stream(words(*documents)), slot_tokens=slot_tokens, isolated=isolated)
    assert row.objective == objective
    assert row.source == "text"
    if not isolated:
        assert len(row.segments) == 256 // slot_tokens


def test_a_row_within_one_document_is_as_full_as_can_be() -> None:
    rows = text_rows(words(5000), sequence_length=2048, objective={"mask": {"short_text_share": 0.0}})
    longest = {"mask": 452, "gmask": 2047}
    for objective, length in longest.items():
        assert {origin.length for ordinal in range(3) for origin in rows.row(objective, ordinal).origins} == {length}
    most = most_spans(512, rows._config.objective.mask)
    assert 452 + 2 * most[452] <= 512 < 453 + 2 * most[453]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_documents_of_one_token_are_samples(objective: str) -> None:
    rows = text_rows(words(*[1] * 600))
    for ordinal in range(4):
        row = rows.row(objective, ordinal)
        assert_sound(row, Stream(words(*[1] * 600)), slot_tokens=256 if objective == "gmask" else 64, isolated=True)
        assert {origin.length for origin in row.origins} == {1}


def test_isolated_documents_leave_out_no_more_than_they_need() -> None:
    """Three documents in a stretch cost a [gMASK] row two more tokens, each end of a document one."""
    rows = text_rows(words(*[100] * 30))
    for ordinal in range(rows.rows_per_epoch):
        row = rows.row("gmask", ordinal)
        used = sum(origin.length + 1 for origin in row.origins)
        assert used in (255, 256)
        assert len(row.segments) in (3, 4)


def test_what_is_left_out_is_drawn() -> None:
    """A stretch of 2047 tokens has room for four samples of 452: the first begins anywhere in 240 tokens."""
    rows = text_rows(words(2047), sequence_length=2048)
    starts = np.array([rows.row("mask", ordinal).origins[0].start for ordinal in range(1500)])
    short = starts > 239  # a shortened text begins later
    assert short.mean() < 0.03
    counts, _ = np.histogram(starts[~short], bins=6, range=(0, 240))
    assert chi_square(counts, [1] * 6) < chi_square_limit(5)


def test_lengths_of_continuations_are_uniform() -> None:
    rows = text_rows(words(20_000))
    lengths = np.array([rows.row("gmask", ordinal).segments[0].target_length for ordinal in range(3000)])
    assert lengths.min() == 51  # a fifth of 255
    assert lengths.max() == 255
    counts, edges = np.histogram(lengths, bins=10, range=(51, 256))
    assert chi_square(counts, np.diff(np.ceil(edges))) < chi_square_limit(9)


def spans(row: Row) -> list[list[tuple[int, int]]]:
    """By segment, position and length of each blank in the order of filling."""
    return [[(at, len(filled)) for at, filled in segment_targets(row, part, SPECIAL)] for part in row.segments]


def mask_rows(draws: int = 300, **mask: float) -> list[Row]:
    rows = text_rows(words(20_000), objective={"mask": mask})
    return [rows.row("mask", ordinal) for ordinal in range(draws)]


def test_blanks_are_filled_in_any_order() -> None:
    """Whatever their lengths: the longest of three is as often first as last."""
    three = [blanks for row in mask_rows(900) for blanks in spans(row) if len(blanks) == 3]
    orders = Counter(tuple(np.argsort([at for at, _ in blanks]).tolist()) for blanks in three)
    assert len(orders) == 6
    assert chi_square(list(orders.values()), [1] * 6) < chi_square_limit(5)
    longest = Counter(
        lengths.index(max(lengths)) for blanks in three if len(set(lengths := [n for _, n in blanks])) == 3
    )
    assert chi_square([longest[place] for place in range(3)], [1] * 3) < chi_square_limit(2)


def test_single_spans_and_shortened_texts() -> None:
    assert all(len(blanks) == 1 for row in mask_rows(20, single_span_share=1.0) for blanks in spans(row))
    longest = max(origin.length for row in mask_rows(5) for origin in row.origins)
    lengths = Counter(
        origin.length
        for row in mask_rows(500, short_text_share=1.0, short_text_minimum_tokens=40)
        for origin in row.origins
    )
    assert sorted(lengths) == list(range(40, longest + 1))
    assert chi_square([lengths[n] for n in sorted(lengths)], [1] * len(lengths)) < chi_square_limit(len(lengths) - 1)
    usual = mask_rows(1000)
    short = np.mean([origin.length < longest for row in usual for origin in row.origins])
    assert 0.011 < short < 0.028  # 2 % of 4000 draws but for the longest of them, within 4 standard errors
    always, never = (
        np.mean([len(blanks) == 1 for row in mask_rows(500, single_span_share=share) for blanks in spans(row)])
        for share in (0.1, 0.0)
    )
    assert 0.07 < always - never < 0.13  # a tenth of 2000, within 4 standard errors


def test_the_blanked_share_of_a_row() -> None:
    shares = [
        sum(length for blanks in spans(row) for _, length in blanks) / sum(origin.length for origin in row.origins)
        for row in mask_rows(single_span_share=0.0)
    ]
    assert 0.15 <= np.mean(shares) < 0.15 + 3.2 / 50


def test_an_epoch_has_every_stretch_once_and_the_next_other_blanks() -> None:
    rows = text_rows(words(100 * 255 + 9))
    epochs = [[rows.row("gmask", 100 * epoch + index) for index in range(100)] for epoch in range(3)]
    firsts = set()
    for epoch in epochs:
        starts = sorted(row.origins[0].start for row in epoch)
        firsts.add(starts[0])
        assert starts == list(range(starts[0], starts[0] + 100 * 255, 255))
    assert len(firsts) > 1
    orders = [tuple(row.origins[0].start // 255 for row in epoch) for epoch in epochs]
    assert len(set(orders)) == 3
    corrupted = [{(row.origins[0].start // 255, row.segments[0].context_length) for row in epoch} for epoch in epochs]
    assert len(corrupted[0] & corrupted[1]) < 5


def test_with_replacement_an_epoch_sees_63_percent() -> None:
    rows = text_rows(words(2000 * 255), with_replacement=True)
    for epoch in range(2):
        drawn = [rows.row("gmask", 2000 * epoch + index) for index in range(2000)]
        starts = Counter(row.origins[0].start for row in drawn)
        assert abs(len(starts) / 2000 - (1 - np.exp(-1))) < 0.03  # four standard errors
        assert len({(row.origins[0].start, row.segments[0].context_length) for row in drawn}) > 1980


def test_rows_are_a_pure_function_of_seed_epoch_and_row() -> None:
    documents = words(300, 5000, 40, 700)
    rows, again, other = text_rows(documents), text_rows(documents), text_rows(documents, seed=8)
    for objective in OBJECTIVES:
        forward = [rows.row(objective, ordinal) for ordinal in range(40)]
        backward = [again.row(objective, ordinal) for ordinal in reversed(range(40))][::-1]
        for one, two in zip(forward, backward, strict=True):
            assert lists(one) == lists(two)
            assert (one.segments, one.origins) == (two.segments, two.origins)
        assert sum(lists(row) == lists(other.row(objective, ordinal)) for ordinal, row in enumerate(forward)) < 3


def full_targets(row: Row) -> tuple[int, int]:
    """Target tokens and blanks that the contexts of a row ask for, whether they are there or not."""
    blanks = int((row.tokens == SPECIAL.mask).sum())
    kept = sum(segment.context_length for segment in row.segments) - blanks
    return sum(origin.length for origin in row.origins) - kept + blanks, blanks


def test_the_original_cut_off_36_percent_of_the_targets_and_35_of_the_spans() -> None:
    """Text of 500 tokens in slots of 512 (glm-130b.md, section 4)."""
    rows = text_rows(words(100_000), sequence_length=2048, objective={"mask": {"text_tokens": 500}})
    lost_tokens, lost_spans = [], []
    for ordinal in range(200):
        row = rows.row("mask", ordinal)
        assert [segment.start for segment in row.segments] == [0, 512, 1024, 1536]
        targets, blanks = full_targets(row)
        lost_tokens.append(1 - row.loss_mask.sum() / targets)
        lost_spans.append(1 - (row.tokens == SPECIAL.sop).sum() / blanks)
        for segment in row.segments:
            split = segment.start + segment.context_length
            assert segment.end <= split // 512 * 512 + 512
            assert row.loss_mask[split : segment.end].all()
            assert row.tokens[split] == SPECIAL.sop
            list(segment_targets(row, segment, SPECIAL))  # what is left is read as it is predicted
    assert np.mean(lost_tokens) == pytest.approx(
        0.36, abs=0.008
    )  # four standard errors, and half a percent of rounding
    assert np.mean(lost_spans) == pytest.approx(0.35, abs=0.012)


def test_without_the_switch_no_target_is_lost() -> None:
    rows = text_rows(words(100_000), sequence_length=2048)
    for row in (rows.row("mask", ordinal) for ordinal in range(50)):
        targets, blanks = full_targets(row)
        assert row.loss_mask.sum() == targets
        assert (row.targets == SPECIAL.eop).sum() == blanks


@pytest.mark.parametrize("objective", ["mask", "smask"])
@pytest.mark.parametrize("document_tokens", [1, 20])
def test_documents_of_a_slot_that_is_cut(objective: str, document_tokens: int) -> None:
    rows = text_rows(words(*[document_tokens] * 300), sequence_length=256, objective={"mask": {"text_tokens": 60}})
    for ordinal in range(20):
        row = rows.row(objective, ordinal)
        assert all(segment.target_length > 0 for segment in row.segments)
        assert all(segment.start // 64 == (segment.end - 1) // 64 for segment in row.segments)
        assert row.loss_mask.sum() == sum(segment.target_length for segment in row.segments)


def test_a_corpus_shorter_than_a_row_says_so() -> None:
    with pytest.raises(UserError, match="the train split holds 254 tokens, less than one row of 255"):
        text_rows(words(254))
    assert isinstance(text_rows(words(255)), TextRows)
