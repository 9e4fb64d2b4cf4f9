"""Blank infilling agrees with the paper's example and with the original, token by token."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm130b.data.blank_infilling import gmask_sample, mask_sample
from glm130b.data.row import Int64Array
from glm130b.data.sample import Sample
from glm130b.data.special_tokens import SpecialTokens

SPECIAL = SpecialTokens.after(100)
REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "objective_vectors.json"
FIELDS = ("tokens", "targets", "loss_mask", "positions", "block_positions")


def reference(section: str) -> tuple[SpecialTokens, list[dict[str, Any]]]:
    """The original's special tokens and its samples."""
    if not REFERENCE.exists():
        pytest.skip("the reference vectors are not on this machine")
    vectors = json.loads(REFERENCE.read_text())
    ids = {name: vectors["special_tokens"][name] for name in ("mask", "gmask", "smask", "eod", "sop", "eop")}
    return SpecialTokens(**ids, enc=382, dblock=383), vectors[section]


def text(num_tokens: int) -> Int64Array:
    return np.arange(1, num_tokens + 1)


def lists(sample: Sample) -> dict[str, list[int]]:
    return {name: getattr(sample, name).astype(int).tolist() for name in FIELDS}


def test_the_worked_example() -> None:
    mask, sop, eop = SPECIAL.mask, SPECIAL.sop, SPECIAL.eop
    sample = mask_sample(text(12), spans=[(2, 5), (7, 10)], order=[1, 0], special=SPECIAL)
    context = [1, 2, mask, 6, 7, mask, 11, 12]
    assert lists(sample) == {
        "tokens": [*context, sop, 8, 9, 10, sop, 3, 4, 5],
        "targets": [*context, 8, 9, 10, eop, 3, 4, 5, eop],
        "loss_mask": [0] * 8 + [1] * 8,
        "positions": [0, 1, 2, 3, 4, 5, 6, 7, 5, 5, 5, 5, 2, 2, 2, 2],
        "block_positions": [0] * 8 + [1, 2, 3, 4, 1, 2, 3, 4],
    }
    assert sample.context_length == 8


def test_every_vector_of_the_original() -> None:
    special, vectors = reference("blank_infilling")
    blanks = {"bert": special.mask, "sentence": special.smask, "generation": special.gmask}
    for vector in vectors:
        spans = [(start, end) for start, end in vector["spans"]]
        sample = mask_sample(
            np.array(vector["tokens_in"]),
            spans=spans,
            order=[spans.index((start, end)) for start, end in vector["target_order"]],
            special=special,
            blank=blanks[vector["task"]],
        )
        assert lists(sample) == {name: vector[name] for name in FIELDS}
        assert sample.context_length == vector["context_length"]


def test_a_continuation_with_constant_positions_is_that_of_the_original() -> None:
    special, vectors = reference("blank_infilling")
    (vector,) = [vector for vector in vectors if vector["task"] == "generation"]
    sample = gmask_sample(
        np.array(vector["tokens_in"]),
        prefix_length=vector["spans"][0][0],
        special=special,
        end_of_piece=True,
        constant_positions=True,
    )
    assert lists(sample) == {name: vector[name] for name in FIELDS}


@pytest.mark.parametrize("prefix_length", [0, 1, 5, 9])
def test_a_continuation_without_an_end_reads_all_but_the_last_token(prefix_length: int) -> None:
    sample = gmask_sample(text(10), prefix_length=prefix_length, special=SPECIAL, end_of_piece=False)
    prefix, rest = list(range(1, prefix_length + 1)), list(range(prefix_length + 1, 11))
    assert sample.tokens.tolist() == [*prefix, SPECIAL.gmask, SPECIAL.sop, *rest[:-1]]
    assert sample.targets[sample.loss_mask].tolist() == rest
    assert sample.positions.tolist() == list(range(11))
    assert sample.block_positions.tolist() == [0] * (prefix_length + 1) + list(range(1, len(rest) + 1))
    assert len(sample) == 11


def test_a_continuation_with_an_end_says_it() -> None:
    sample = gmask_sample(text(10), prefix_length=4, special=SPECIAL, end_of_piece=True)
    assert sample.tokens.tolist() == [1, 2, 3, 4, SPECIAL.gmask, SPECIAL.sop, *range(5, 11)]
    assert sample.targets[sample.loss_mask].tolist() == [*range(5, 11), SPECIAL.eop]
    assert sample.positions.tolist() == list(range(12))


def test_a_text_without_blanks_has_no_loss() -> None:
    sample = mask_sample(text(5), spans=[], order=[], special=SPECIAL)
    assert sample.tokens.tolist() == [1, 2, 3, 4, 5]
    assert not sample.loss_mask.any()


def test_nothing_but_a_blank() -> None:
    sample = mask_sample(text(3), spans=[(0, 3)], order=[0], special=SPECIAL)
    assert sample.tokens.tolist() == [SPECIAL.mask, SPECIAL.sop, 1, 2, 3]
    assert sample.positions.tolist() == [0, 0, 0, 0, 0]
