"""Reading documents one file after the other: good ones come through, each bad one is named with its reason."""

import json
from pathlib import Path

import pytest

from glm130b.data.reading.documents import INSTRUCTION_FIELDS, MOST_PROBLEMS, TEXT_FIELDS, read_documents
from glm130b.data.reading.pieces import Reading


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "is not JSON (column 2"),
        (b"", "is empty"),
        (b"   ", "is empty"),
        (b"[1]", "is a JSON list"),
        (b'"text"', "is a JSON str"),
        (b'{"words": "a"}', "has no text"),
        (b'{"text": ""}', "has a text with nothing in it"),
        (b'{"text": " \\n"}', "has a text with nothing in it"),
        (b'{"text": 3}', "text is not a string"),
        (b'{"text": "\xff"}', "byte 11 is not UTF-8"),
        (b'{"text": "\\ud800"}', "holds half of a surrogate pair"),
        (b'{"text": "' + 33 * b"x" + b'"}', "has a text of 33 bytes, and 32 are allowed"),
        (b'{"more": "' + 128 * b"x" + b'", "text": "a"}', "is longer than 128 bytes"),
        (b'{"text": ' + b"[" * 100 + b"1" * 10, "is not JSON"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(tmp_path: Path, line: bytes, reason: str) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"text": "first"}\r\n' + line + b'\n{"text": "last", "more": 1}')
    problems: list[str] = []
    reading = Reading(longest_bytes=32)
    documents = list(read_documents([file], layouts=[TEXT_FIELDS], problems=problems, reading=reading))
    assert documents == [("first",), ("last",)]
    (problem,) = problems
    assert problem.startswith(f"{file}, line 2: {reason}")


@pytest.mark.parametrize("content", ["[" * 100_000, f'{{"text": {"1" * 5000}}}'])
def test_json_that_is_too_much_for_a_parser_is_a_bad_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text(f'{content}\n{{"text": "fine"}}\n')
    problems: list[str] = []
    assert list(read_documents([file], layouts=[TEXT_FIELDS], problems=problems)) == [("fine",)]
    assert "line 1: is JSON that cannot be read" in problems[0]


def test_layouts_are_tried_in_order(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"text": "a"}\n{"inputs": "q", "targets": "\\u4e2d"}\n')
    assert list(read_documents([file], layouts=[TEXT_FIELDS, INSTRUCTION_FIELDS], problems=[])) == [("a",), ("q", "中")]


def test_reading_ends_at_twenty_problems_and_says_so(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.jsonl", tmp_path / "good.jsonl"
    bad.write_text("broken\n" * (MOST_PROBLEMS + 5))
    good.write_text(json.dumps({"text": "unread"}))
    problems: list[str] = []
    assert list(read_documents([bad, good], layouts=[TEXT_FIELDS], problems=problems)) == []
    assert len(problems) == MOST_PROBLEMS + 1
    assert problems[-1] == f"no line after {bad}, line 20 was read; mend these 20 first"


def test_a_missing_file_is_a_problem_and_the_next_is_read(tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    good.write_text('{"text": "a"}')
    problems: list[str] = []
    missing = tmp_path / "none.jsonl"
    assert list(read_documents([missing, good], layouts=[TEXT_FIELDS], problems=problems)) == [("a",)]
    assert problems == [f"{missing}: cannot be read (No such file or directory); name a file with documents"]
