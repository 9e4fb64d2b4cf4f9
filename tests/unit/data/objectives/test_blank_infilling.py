"""Rows agree with the paper's example, with the original token by token, and with an infilling of plain loops."""

import json
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm130b.data.arrays import Int64Array
from glm130b.data.objectives.blank_infilling import continuation_row, infilling_row
from glm130b.data.objectives.pieces import Pieces, Room, Stretch
from glm130b.data.objectives.row import Origin, Row, Segment
from glm130b.data.objectives.sample import Sample
from glm130b.data.objectives.spans import Spans
from glm130b.data.tokenizers.special_tokens import SpecialTokens
from tests.harness.plain_infilling import gmask_sample, mask_sample
from tests.unit.data.objectives.rows import FIELDS, lists

SPECIAL = SpecialTokens.after(1000)
REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "objective_vectors.json"
ROOM = Room(num_slots=3, slot_tokens=150, capacity=150, needed=())


def reference(section: str) -> tuple[SpecialTokens, list[dict[str, Any]]]:
    """The original's special tokens and its samples."""
    if not REFERENCE.exists():
        pytest.skip("the reference vectors are not on this machine")
    vectors = json.loads(REFERENCE.read_text())
    ids = {name: vectors["special_tokens"][name] for name in ("mask", "gmask", "smask", "eod", "sop", "eop")}
    return SpecialTokens(**ids, enc=382, dblock=383), vectors[section]


class Blanked(NamedTuple):
    """One piece: what to make of it."""

    start: int
    length: int
    slot: int
    spans: list[tuple[int, int]]
    """Half-open, in the piece."""
    order: list[int]
    """Of filling."""


def filled_in(tokens: Int64Array, blanked: list[Blanked], *, special: SpecialTokens, objective: str = "mask") -> Row:
    spans = [(piece, start, end - start) for piece, one in enumerate(blanked) for start, end in one.spans]
    firsts = accumulate((len(one.spans) for one in blanked), initial=0)
    return infilling_row(
        Stretch(5000, tokens, [len(tokens)]),
        Pieces(*np.array([one[:3] for one in blanked]).T),
        Spans(*np.array(spans).T),
        order=np.array([first + index for first, one in zip(firsts, blanked, strict=False) for index in one.order]),
        room=ROOM,
        special=special,
        objective=objective,
        source="text",
    )


def continued(tokens: Int64Array, pieces: list[tuple[int, int, int]], targets: list[int], **switches: bool) -> Row:
    return continuation_row(
        Stretch(5000, tokens, [len(tokens)]),
        Pieces(*np.array(pieces).T),
        target_lengths=np.array(targets),
        room=ROOM,
        special=SPECIAL,
        source="text",
        end_of_piece=switches["end_of_piece"],
        constant_positions=switches["constant_positions"],
    )


def assert_holds(row: Row, samples: list[Sample], *, slots: list[int]) -> None:
    """The samples stand in their slots side by side, and nothing else does."""
    free = {slot: slot * ROOM.slot_tokens for slot in slots}
    inside = np.zeros(len(row.tokens), np.bool_)
    for segment, sample, slot in zip(row.segments, samples, slots, strict=True):
        assert segment == Segment(free[slot], sample.context_length, len(sample) - sample.context_length)
        assert lists(row, slice(segment.start, segment.end)) == lists(sample)
        inside[segment.start : segment.end] = True
        free[slot] = segment.end
    for name in FIELDS:
        array = getattr(row, name)
        assert array.shape == (ROOM.num_slots * ROOM.slot_tokens,)
        assert array.dtype == (np.bool_ if name == "loss_mask" else np.int64)
        assert not array[~inside].any()


def test_the_worked_example() -> None:
    mask, sop, eop = SPECIAL.mask, SPECIAL.sop, SPECIAL.eop
    row = filled_in(np.arange(1, 13), [Blanked(0, 12, 0, [(2, 5), (7, 10)], [1, 0])], special=SPECIAL)
    context = [1, 2, mask, 6, 7, mask, 11, 12]
    assert lists(row, slice(16)) == {
        "tokens": [*context, sop, 8, 9, 10, sop, 3, 4, 5],
        "targets": [*context, 8, 9, 10, eop, 3, 4, 5, eop],
        "loss_mask": [0] * 8 + [1] * 8,
        "positions": [0, 1, 2, 3, 4, 5, 6, 7, 5, 5, 5, 5, 2, 2, 2, 2],
        "block_positions": [0] * 8 + [1, 2, 3, 4, 1, 2, 3, 4],
    }
    assert row.segments == (Segment(0, 8, 8),)
    assert row.origins == (Origin(5000, 12),)
    assert (row.objective, row.source) == ("mask", "text")


def test_every_vector_of_the_original() -> None:
    special, vectors = reference("blank_infilling")
    objectives = {"bert": "mask", "sentence": "smask"}
    for vector in vectors:
        spans = [(start, end) for start, end in vector["spans"]]
        if vector["task"] in objectives and spans:  # no row of ours is without a blank
            order = [spans.index((start, end)) for start, end in vector["target_order"]]
            tokens = np.array(vector["tokens_in"])
            blanked = [Blanked(0, len(tokens), 0, spans, order)]
            row = filled_in(tokens, blanked, special=special, objective=objectives[vector["task"]])
            (segment,) = row.segments
            assert lists(row, slice(segment.end)) == {name: vector[name] for name in FIELDS}
            assert segment.context_length == vector["context_length"]


def test_every_vector_of_the_original_agrees_with_the_plain_loops() -> None:
    special, vectors = reference("blank_infilling")
    blanks = {"bert": special.mask, "sentence": special.smask, "generation": special.gmask}
    for vector in vectors:
        spans = [(start, end) for start, end in vector["spans"]]
        order = [spans.index((start, end)) for start, end in vector["target_order"]]
        blank = blanks[vector["task"]]
        samples = [mask_sample(vector["tokens_in"], spans=spans, order=order, special=special, blank=blank)]
        if vector["task"] == "generation":
            prefix = spans[0][0]
            samples.append(
                gmask_sample(
                    vector["tokens_in"],
                    prefix_length=prefix,
                    special=special,
                    end_of_piece=True,
                    constant_positions=True,
                )
            )
        for sample in samples:
            assert lists(sample) == {name: vector[name] for name in FIELDS}
            assert sample.context_length == vector["context_length"]


@st.composite
def blanked_pieces(draw: st.DrawFn) -> list[Blanked]:
    """Pieces anywhere in a text, several to a slot or none, with any spans, that touch the ends of a piece or not."""
    blanked: list[Blanked] = []
    start = draw(st.integers(0, 3))
    for slot in range(ROOM.num_slots):
        for _ in range(draw(st.integers(0 if blanked or slot < ROOM.num_slots - 1 else 1, 3))):
            lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=9))
            edges = [0, *accumulate(lengths)]
            spans = list(pairwise(edges))[draw(st.integers(0, min(1, len(lengths) - 1))) :: 2]
            order = draw(st.permutations(range(len(spans))))
            blanked.append(Blanked(start, edges[-1], slot, spans, order))
            start += edges[-1] + draw(st.integers(0, 2))
    return blanked


@given(blanked_pieces(), st.integers(0, 2), st.sampled_from(["mask", "smask"]))
def test_rows_are_those_of_plain_loops(blanked: list[Blanked], rest: int, objective: str) -> None:
    tokens = np.arange(1, blanked[-1].start + blanked[-1].length + rest + 1)
    row = filled_in(tokens, blanked, special=SPECIAL, objective=objective)
    samples = [
        mask_sample(
            tokens[one.start :][: one.length],
            spans=one.spans,
            order=one.order,
            special=SPECIAL,
            blank=SPECIAL.smask if objective == "smask" else SPECIAL.mask,
        )
        for one in blanked
    ]
    assert_holds(row, samples, slots=[one.slot for one in blanked])
    assert row.origins == tuple(Origin(5000 + one.start, one.length) for one in blanked)
    assert tokens.tolist() == list(range(1, len(tokens) + 1))  # the text itself is left as it is


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20), st.integers(0, 2)), min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_continuations_are_those_of_plain_loops(
    parts: list[tuple[int, int, int]], end_of_piece: bool, constant_positions: bool
) -> None:
    """Parts are prefix, target, and what is left out before the next."""
    starts = list(accumulate((sum(part) for part in parts), initial=1))
    tokens = np.arange(1, starts[-1] + 1)
    pieces = [(start, prefix + target, 0) for start, (prefix, target, _) in zip(starts, parts, strict=False)]
    switches = {"end_of_piece": end_of_piece, "constant_positions": constant_positions}
    row = continued(tokens, pieces, [target for _, target, _ in parts], **switches)
    samples = [
        gmask_sample(tokens[start:][:length], prefix_length=prefix, special=SPECIAL, **switches)
        for (start, length, _), (prefix, _, _) in zip(pieces, parts, strict=True)
    ]
    assert_holds(row, samples, slots=[0] * len(parts))
    assert row.origins == tuple(Origin(5000 + start, length) for start, length, _ in pieces)
    assert row.objective == "gmask"


def test_a_continuation_without_an_end_reads_all_but_the_last_token() -> None:
    row = continued(np.arange(1, 11), [(0, 10, 0)], [6], end_of_piece=False, constant_positions=False)
    assert row.tokens[:11].tolist() == [1, 2, 3, 4, SPECIAL.gmask, SPECIAL.sop, 5, 6, 7, 8, 9]
    assert row.targets[row.loss_mask].tolist() == [5, 6, 7, 8, 9, 10]
    assert row.positions[:11].tolist() == list(range(11))


def test_a_row_too_small_is_an_error() -> None:
    tokens = np.arange(1, 301)
    whole = [Blanked(0, 148, 0, [(3, 5)], [0])]
    assert filled_in(tokens, whole, special=SPECIAL).segments[0].end == 150
    with pytest.raises(ValueError, match="of a slot of 150 tokens are 1 tokens too long"):
        filled_in(tokens, [Blanked(0, 149, 0, [(3, 5)], [0])], special=SPECIAL)
    with pytest.raises(ValueError, match="of a slot of 150 tokens are 3 tokens too long"):
        filled_in(tokens, [*whole, Blanked(200, 1, 0, [(0, 1)], [0])], special=SPECIAL)
