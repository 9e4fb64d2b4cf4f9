"""Variants of an instruction: their shares, their wording, and that exemplars never leak."""

import pickle
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm130b.data.preparation.few_shot import Variant, VariedPairs, Wording
from glm130b.data.preparation.rendering import Pair, PlainPairs
from glm130b.data.preparation.templates import Template, TemplatedPairs

LONG = 10**6
WORDING = Wording(request="Think.", conclusion="So:")


def varied(
    records: list[dict[str, Any]], *variants: Variant, held_out: tuple[str, ...] = (), renderer: Any = None
) -> list[list[Pair]]:
    pairs = VariedPairs(renderer or PlainPairs(), variants, WORDING)
    pairs_of = pickle.loads(pickle.dumps(pairs)).for_shard(lambda side: side in held_out)
    return [pairs_of(record) for record in records]


def numbered(count: int) -> list[dict[str, Any]]:
    """Records whose texts have nothing in common."""
    return [{"inputs": f"<Q{i}>", "targets": f"<A{i}>"} for i in range(count)]


def test_zero_shot_is_the_pair_itself() -> None:
    assert varied(numbered(2), Variant(share=1)) == [[Pair("<Q0>", "<A0>", "<Q0>")], [Pair("<Q1>", "<A1>", "<Q1>")]]


def test_exemplars_are_earlier_pairs_with_their_answers() -> None:
    found = [pair for (pair,) in varied(numbered(4), Variant(share=1, shots=2))]
    assert [pair.prompt for pair in found[:2]] == ["<Q0>", "<Q0>\n<A0>\n\n<Q1>"]
    assert found[2].prompt in ("<Q0>\n<A0>\n\n<Q1>\n<A1>\n\n<Q2>", "<Q1>\n<A1>\n\n<Q0>\n<A0>\n\n<Q2>")
    assert [pair.answer for pair in found] == ["<A0>", "<A1>", "<A2>", "<A3>"]
    assert [pair.side for pair in found] == ["<Q0>", "<Q1>", "<Q2>", "<Q3>"]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.sets(st.integers(0, 30)), st.integers(1, 5))
def test_exemplars_are_never_held_out_nor_the_record_itself(numbers: list[int], held_out: set[int], shots: int) -> None:
    records = [{"inputs": f"<Q{n}>", "targets": f"<A{n}-{i % 2}>"} for i, n in enumerate(numbers)]
    sides = tuple(f"<Q{n}>" for n in held_out)
    found = varied(records, Variant(share=1, shots=shots, most_characters=LONG), held_out=sides)
    for place, ((pair,), number) in enumerate(zip(found, numbers, strict=True)):
        *exemplars, prompt = pair.prompt.split("\n\n")
        assert prompt == f"<Q{number}>"
        shown = [int(text.split(">")[0][2:]) for text in exemplars]
        allowed = [n for n in numbers[:place] if n not in held_out and n != number]
        assert not Counter(shown) - Counter(allowed)
        assert len(shown) == min(shots, len(allowed))
        assert pair.answer == records[place]["targets"]


def test_variants_have_their_shares_and_are_the_records_own() -> None:
    records = numbered(4000)
    variants = Variant(share=3), Variant(share=1, shots=2)
    counts = Counter(pair.prompt.count("\n\n") for (pair,) in varied(records[2:], *variants, held_out=()))
    assert counts[2] == pytest.approx(1000, abs=90)
    three = Variant(share=2), Variant(share=1, shots=1), Variant(share=1, shots=2)
    counts = Counter(pair.prompt.count("\n\n") for (pair,) in varied(records, *three))
    assert [counts[shots] for shots in range(3)] == pytest.approx([2000, 1000, 1000], abs=100)
    few = {pair.side for (pair,) in varied(records, *variants) if "\n\n" in pair.prompt}
    backwards = {pair.side for (pair,) in varied(records[::-1], *variants) if "\n\n" in pair.prompt}
    assert len(few ^ backwards) <= 2  # the first of a shard has no exemplar
    assert varied(records, *variants) == varied(records, *variants)


def test_reasoning_stands_before_the_answer() -> None:
    records = [{**record, "rationale": f"because {i}"} for i, record in enumerate(numbered(2))]
    first, second = (pair for (pair,) in varied(records, Variant(share=1, shots=1, reasoning=True)))
    assert (first.prompt, first.answer) == ("<Q0>\nThink.", "because 0\nSo: <A0>")
    assert second.prompt == "<Q0>\nThink.\nbecause 0\nSo: <A0>\n\n<Q1>\nThink."


def test_records_without_reasoning_take_the_other_variants_and_are_no_exemplars_of_it() -> None:
    records = numbered(40)
    for record in records[1::2]:
        record["rationale"] = "since"
    variants = Variant(share=9, shots=1, reasoning=True), Variant(share=1)
    found = [pair for (pair,) in varied(records, *variants)]
    assert all(pair.prompt == pair.side for pair in found[::2])
    with_reasoning = [pair for pair in found[3::2] if pair.prompt != pair.side]
    assert len(with_reasoning) > 12
    assert all(pair.prompt.count("since\nSo: ") == 1 for pair in with_reasoning)
    with pytest.raises(ValueError, match="has no rationale, and every variant is one with reasoning; write it"):
        varied(numbered(1), Variant(share=1, reasoning=True))
    with pytest.raises(ValueError, match="rationale is not a string"):
        varied([{**records[0], "rationale": 3}], *variants)


def test_blanks_of_exemplars_are_filled_and_that_of_the_prompt_is_the_only_one() -> None:
    records = [
        {"inputs": "Tea is [MASK].", "targets": "old"},
        {"inputs": "[MASK] and [MASK]", "targets": "two"},
        {"inputs": "Say a blank", "targets": "[MASK]"},
        {"inputs": "Ink is [MASK].", "targets": "wet"},
    ]
    *_, (pair,) = varied(records, Variant(share=1, shots=4))
    assert pair.prompt == "Tea is old.\n\nInk is [MASK]."


def test_exemplars_leave_room_for_the_prompt() -> None:
    records = [{"inputs": "q" * size, "targets": "a"} for size in (40, 10, 39, 11)]
    found = [pair.prompt for (pair,) in varied(records, Variant(share=1, shots=3, most_characters=60))]
    assert found == ["q" * 40, f"{'q' * 40}\na\n\n{'q' * 10}", f"{'q' * 10}\na\n\n{'q' * 39}", found[3]]
    assert all(len(prompt) <= 60 for prompt in found)


def test_exemplars_have_the_form_of_the_prompt() -> None:
    templates = tuple(Template(name, f"{name}: {{{{ x }}}} ||| {{{{ x }}}}", None, "file") for name in ("ask", "tell"))
    records = [{"x": f"{i}"} for i in range(20)]
    for all_templates in (False, True):
        renderer = TemplatedPairs(templates, all_templates)
        for pairs in varied(records, Variant(share=1, shots=3), renderer=renderer):
            for pair in pairs:
                assert {text.split(":")[0] for text in pair.prompt.split("\n\n")} == {pair.form}


def test_what_is_no_text_is_no_exemplar() -> None:
    records = [
        {"inputs": "half \ud800", "targets": "a"},
        {"inputs": "q", "targets": " "},
        {"inputs": "good", "targets": "g"},
        {"inputs": "last", "targets": "l"},
    ]
    *_, (pair,) = varied(records, Variant(share=1, shots=4))
    assert pair.prompt == "good\ng\n\nlast"
