"""Rows of instructions: every pair once an epoch with its whole answer, whichever way they are packed."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm130b.config.errors import UserError
from glm130b.data.arrays import Int64Array
from glm130b.data.mixing.permutation import Permutation
from glm130b.data.objectives.instruction_rows import InstructionRows
from glm130b.data.tokenizers.special_tokens import SpecialTokens
from tests.harness.synthetic import small_config

SPECIAL = SpecialTokens.after(10_000)
SLOT = 16
packings = st.sampled_from(["fixed", "greedy"])
lengths = st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80)), min_size=1, max_size=40)


class Pairs:
    """A corpus of pairs of these lengths; token 1 + its place in the stream is each token."""

    def __init__(self, pairs: list[tuple[int, int]]) -> None:
        self._lengths = np.array(pairs)
        self.num_pairs = len(pairs)

    def pair_lengths(self) -> tuple[Int64Array, Int64Array]:
        return self._lengths[:, 0], self._lengths[:, 1]

    def pair_start(self, index: int) -> int:
        return int(self._lengths[:index].sum())

    def pair(self, index: int) -> tuple[Int64Array, Int64Array]:
        prompt, answer = self._lengths[index]
        tokens = 1 + self.pair_start(index) + np.arange(prompt + answer)
        return tokens[:prompt], tokens[prompt:]


def instruction_rows(
    pairs: list[tuple[int, int]], *, with_replacement: bool = False, **options: Any
) -> InstructionRows:
    config = small_config(
        data={"sequence_length": 4 * SLOT, "with_replacement": with_replacement},
        objective={"instruction": options},
    )
    return InstructionRows(Pairs(pairs), config, source="s", split="train", special=SPECIAL)  # type: ignore[arg-type]


@given(lengths, packings, st.sampled_from(["head", "tail"]), st.integers(0, 2))
def test_an_epoch_holds_every_pair_once_with_its_whole_answer(
    pairs: list[tuple[int, int]], packing: str, keep: str, epoch: int
) -> None:
    corpus = Pairs(pairs)
    fits = [i for i, (prompt, answer) in enumerate(pairs) if min(prompt, SLOT // 4) + 2 + answer <= 4 * SLOT]
    try:
        rows = instruction_rows(pairs, packing=packing, long_prompts_keep=keep)
    except UserError:
        assert not fits
        return
    assert rows.num_left_out == len(pairs) - len(fits)
    seen = []
    for ordinal in range(epoch * rows.rows_per_epoch, (epoch + 1) * rows.rows_per_epoch):
        row = rows.row(ordinal)
        assert len(row.tokens) == 4 * SLOT
        inside = np.zeros(4 * SLOT, np.bool_)
        for segment, origin in zip(row.segments, row.origins, strict=True):
            place = slice(segment.start, segment.end)
            assert not inside[place].any()
            inside[place] = True
            (pair,) = (i for i in fits if corpus.pair_start(i) == origin.start)
            seen.append(pair)
            prompt, answer = corpus.pair(pair)
            assert origin.length == len(prompt) + len(answer)
            assert row.targets[place][row.loss_mask[place]].tolist() == [*answer, SPECIAL.eop]
            kept = row.tokens[segment.start :][: segment.context_length - 1]
            assert np.isin(kept, prompt).all()
        for name in ("tokens", "targets", "loss_mask", "positions", "block_positions"):
            assert not getattr(row, name)[~inside].any()
    assert sorted(seen) == fits


def test_fixed_rows_of_short_pairs_are_four_of_a_permutation_each() -> None:
    rows = instruction_rows([(i % 9 + 1, i % 3 + 1) for i in range(22)])
    assert rows.rows_per_epoch == 6
    order = Permutation(22, 11, "train", "instructions", "s", "order")(np.arange(22)).tolist()
    corpus = Pairs([(i % 9 + 1, i % 3 + 1) for i in range(22)])
    expected = [tuple(corpus.pair_start(i) for i in order[first : first + 4]) for first in range(0, 22, 4)]
    found = [tuple(origin.start for origin in rows.row(ordinal).origins) for ordinal in range(6)]
    assert sorted(found) == sorted(expected)
    assert all(segment.start % SLOT == 0 for ordinal in range(6) for segment in rows.row(ordinal).segments)


def test_a_long_answer_takes_more_slots_and_greedy_rows_hold_more() -> None:
    long = [(30, 20)] * 8
    assert {segment.start % SLOT for i in range(4) for segment in instruction_rows(long).row(i).segments} == {0}
    assert instruction_rows(long).rows_per_epoch == 4
    short = [(4, 2)] * 16
    assert instruction_rows(short).rows_per_epoch == 4
    assert instruction_rows(short, packing="greedy").rows_per_epoch == 2


def test_epochs_reorder_the_same_rows() -> None:
    rows = instruction_rows([(5, 5)] * 120)
    epochs = [[rows.row(ordinal).origins for ordinal in range(e * 30, (e + 1) * 30)] for e in range(2)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])


def test_with_replacement_rows_are_drawn_anew() -> None:
    rows = instruction_rows([(5, 5)] * 4000, with_replacement=True)
    counts = Counter(rows.row(ordinal).origins for ordinal in range(rows.rows_per_epoch))
    assert len(counts) == pytest.approx((1 - np.exp(-1)) * 1000, abs=40)  # the 63 % of the original
    assert rows.row(17).origins == instruction_rows([(5, 5)] * 4000, with_replacement=True).row(17).origins


def test_a_set_without_a_fitting_answer_is_an_error() -> None:
    with pytest.raises(UserError, match="none of the 2 answers of the train split fits a row of 64 tokens; write"):
        instruction_rows([(5, 64), (5, 300)])
