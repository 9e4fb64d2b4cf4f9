"""Tasks: cut the same way whoever works on them."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glm130b.config.errors import UserError
from glm130b.data.cleaning import request
from glm130b.data.cleaning.request import Cleaning

Make = Callable[..., Cleaning]


def test_tasks_hold_all_bytes_in_order(cleaning: Make) -> None:
    asked = cleaning(["a" * 300] * 10, ["b"], ["c"], ["d" * 900] * 3, task_bytes=1000)
    tasks = asked.tasks()
    pieces = [piece for task in tasks for piece in task]
    assert [piece.file for piece in pieces] == sorted(piece.file for piece in pieces)
    for file in asked.files:
        ranges = [(piece.start, piece.end) for piece in pieces if piece.file == file]
        assert [start for start, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
        assert ranges[-1][1] == file.stat().st_size
    assert all(sum(piece.work for piece in task) >= 1000 for task in tasks[:-1])
    assert any(len({piece.file for piece in task}) > 1 for task in tasks), "small files share a task"


def test_tasks_grow_where_there_would_be_too_many(cleaning: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "_MOST_TASKS", 5)
    assert 3 <= len(cleaning(["a" * 300] * 40, ["b" * 300] * 40, task_bytes=100).tasks()) <= 5


def test_the_key_knows_options_and_files(cleaning: Make) -> None:
    asked = cleaning(["some text"], filters=("c4",))
    tasks = asked.tasks()
    others: list[dict[str, Any]] = [
        {"filters": ("fineweb",)},
        {"near_duplicates": True},
        {"keep_dropped": True},
        {"text_field": "content"},
        {"language": "zh"},
    ]
    keys = [asked.key(tasks), *(replace(asked, **other).key(tasks) for other in others)]
    os.utime(asked.files[0], ns=(1, 1))
    keys.append(asked.key(asked.tasks()))
    assert len(set(keys)) == len(keys)


def test_every_file_that_cannot_be_read_is_named(cleaning: Make, tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"nothing")
    files = (tmp_path / "missing.jsonl", tmp_path / "no.parquet")
    with pytest.raises(UserError) as caught:
        cleaning(files=files).tasks()
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [str(file) for file in files]
