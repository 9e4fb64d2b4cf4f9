"""Texts to clean."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glm130b.data.cleaning.request import Cleaning

GOOD = (
    "The school stands at the end of a long road that leads out of the town, and most of the children walk to it. "
    "In the winter they have to leave home before the sun is up, with a lamp in one hand and their books in the other. "
    "Nobody complains about the cold, because there is a stove in the hall and the bread is still warm. "
    "When the bell rings they hang their coats on the wall and sit down to be counted. "
    "The teacher reads a story to them first, and then she asks each child to say what the story was about."
)
"""A document that every filter keeps."""

BAD = {
    "gopher-repetition": "We have to be there with all of them.\n" * 40,
    "gopher-quality": " ".join(GOOD.split()[:40]),
    "c4": GOOD.replace("a lamp", "{a lamp}"),
    "fineweb": GOOD.replace(". ", ".\n") + "\nIt was a good day for all of us." * 2,
}
"""A document that the filter drops."""

REASONS = {
    "gopher-repetition": "dup_line_frac",
    "gopher-quality": "gopher_short_doc",
    "c4": "curly_bracket",
    "fineweb": "char_dup_ratio",
}


def good(number: int) -> str:
    """A document that every filter keeps and that is like no other in most of its words."""
    syllables = ("ba", "do", "ri", "mu", "le", "sa", "ko", "ti", "nu", "ve")
    name = "".join(syllables[int(digit)] for digit in f"{number:03d}")
    return " ".join(word if place % 4 else f"{name}{word}" for place, word in enumerate(GOOD.split()))


def edited(text: str) -> str:
    """The text with one word changed, far below what makes it another text."""
    words = text.split(" ")
    words[len(words) // 2] = "thing"
    return " ".join(words)


@pytest.fixture
def cleaning(tmp_path: Path) -> Callable[..., Cleaning]:
    """Writes lists of texts, or of lines as they are (bytes), into JSONL files of their own and asks to clean them."""

    def make(*files: list[str | bytes], **options: Any) -> Cleaning:
        paths = []
        for number, rows in enumerate(files):
            lines = [
                row if isinstance(row, bytes) else json.dumps({"text": row}, ensure_ascii=False).encode()
                for row in rows
            ]
            paths.append(tmp_path / f"{number}.jsonl")
            paths[-1].write_bytes(b"".join(line + b"\n" for line in lines))
        return Cleaning(**{"files": tuple(paths), "filters": (), "near_duplicates": False, "language": "en"} | options)

    return make
