"""Text fills the slots as far as it fits, document by document."""

from collections import Counter
from itertools import accumulate

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glm130b.data.objectives.pieces import Pieces, Room
from tests.unit.data.objectives.rows import chi_square, chi_square_limit

ROOM = Room(num_slots=3, slot_tokens=20, capacity=20, needed=[0, 3, 4, 5, *range(8, 21)])
"""Two tokens more than a piece of up to three has, four more than a longer one: 16 fit a slot, 48 a row."""


def laid_out(room: Room, ends: list[int], seed: int = 0) -> list[tuple[int, int, int]]:
    pieces = room.lay_out(np.random.default_rng(seed), ends)
    return list(zip(*(part.tolist() for part in pieces), strict=True))


def test_a_text_of_one_document_gives_a_piece_to_each_slot() -> None:
    places = Counter(laid_out(ROOM, [52], seed)[0][0] for seed in range(3000))
    assert sorted(places) == [0, 1, 2, 3, 4]  # what is left out lies before and behind, where is drawn
    assert chi_square([places[place] for place in range(5)], [1] * 5) < chi_square_limit(4)
    for seed in range(5):
        (first, *_), second, third = laid_out(ROOM, [52], seed)
        assert [(first, 16, 0), second, third] == [(first + 16 * slot, 16, slot) for slot in range(3)]


def test_a_slot_holds_several_documents() -> None:
    assert laid_out(ROOM, [3, 4, 12, 40]) == [(0, 3, 0), (3, 1, 0), (4, 8, 0), (12, 16, 1), (28, 12, 2)]
    # 5 + 3 of 20 leave 12, in which a piece of 8 fits exactly; the last document fits with 4 to spare.


def test_a_document_that_does_not_fit_goes_on_in_the_next_slot() -> None:
    assert laid_out(ROOM, [10, 31]) == [(0, 10, 0), (10, 3, 0), (13, 16, 1), (29, 2, 2)]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 1000))
def test_pieces_are_in_order_and_as_long_as_can_be(documents: list[int], seed: int) -> None:
    ends = list(accumulate(documents))
    pieces = laid_out(ROOM, ends, seed)
    free, token = [ROOM.capacity] * ROOM.num_slots, pieces[0][0]
    for start, length, slot in pieces:
        assert start == token  # nothing is left out between
        assert length >= 1
        token += length
        document = next(end for end in ends if end > start)
        assert token <= document
        is_longest = length == 16 or free[slot] < ROOM.needed[length + 1]
        assert is_longest or token == document
        free[slot] -= ROOM.needed[length]
    assert min(free) >= 0
    assert token == ends[-1] or max(free) < ROOM.needed[1]
    assert [slot for _, _, slot in pieces] == sorted(slot for _, _, slot in pieces)


def test_the_arrays_are_integers() -> None:
    assert all(part.dtype == np.int64 for part in Pieces(*ROOM.lay_out(np.random.default_rng(0), [5])))
