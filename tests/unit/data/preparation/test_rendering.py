"""Records that hold their pair are told apart by their fields."""

import pickle
from typing import Any

import pytest

from glm130b.data.preparation.rendering import Pair, PlainPairs
from glm130b.data.reading.rejection import Rejection


def pairs(record: dict[str, Any]) -> list[Pair]:
    renderer = pickle.loads(pickle.dumps(PlainPairs()))
    return renderer.for_shard(lambda side: False)(record)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("record", "prompt", "answer"),
    [
        ({"inputs": "Q", "targets": "A"}, "Q", "A"),
        ({"inputs": "Q", "targets": "A", "task_name": "t", "template_type": "zs_noopt", "input": "x"}, "Q", "A"),
        ({"instruction": "I", "output": "O"}, "I", "O"),
        ({"instruction": "I", "input": "", "output": "O"}, "I", "O"),
        ({"instruction": "I", "input": None, "output": "O"}, "I", "O"),
        ({"instruction": "I", "input": "X", "output": "O", "text": "all of it"}, "I\n\nX", "O"),
        ({"inputs": "Fill [MASK].", "targets": "A", "instruction": "I", "output": "O"}, "Fill [MASK].", "A"),
    ],
)
def test_prompt_and_answer(record: dict[str, Any], prompt: str, answer: str) -> None:
    assert pairs(record) == [Pair(prompt, answer, side=prompt)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": "x"}, "has no inputs and targets or instruction and output; write an object with"),
        ({"inputs": "Q"}, "has no inputs and targets or instruction and output"),
        ({"instruction": "I", "output": 3}, "output is not a string; write text there"),
        ({"instruction": "I", "output": "O", "input": ["x"]}, "input is not a string; write text there"),
    ],
)
def test_other_records_are_rejected(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(Rejection, match=reason):
        pairs(record)


def test_a_renderer_says_what_it_is() -> None:
    assert repr(PlainPairs()) == "PlainPairs()"
