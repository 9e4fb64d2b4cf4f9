"""The documents of a task and what became of each: one row of JSON a document."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from glm130b.data.cleaning.request import Task

DAMAGED = "damaged file"
"""Reason of what stands for the rest of a file that cannot be read to its end."""


def read_rows(folder: Path, rank: int) -> Iterator[dict[str, Any]]:
    """The documents of a task as Filtering wrote them down."""
    with (folder / f"{rank:05d}.jsonl").open("rb") as lines:
        yield from map(json.loads, lines)


def open_shard(folder: Path | None, rank: int) -> TextIO:
    """The file of a task in a folder, to be written anew; without a folder what is written is gone."""
    if folder is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / f"{rank:05d}.jsonl").open("w", encoding="utf-8")


class Lines:
    """Where in their files the lines of pieces are; known when all of the files have been read."""

    def __init__(self, rows: Path, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._before: list[list[int]] = []
        file, passed = None, 0
        for rank, task in enumerate(tasks):
            self._before.append([])
            counts = json.loads((rows / f"{rank:05d}.lines").read_text())
            for piece, num_lines in zip(task, counts, strict=True):
                file, passed = piece.file, passed if piece.file == file else 0
                self._before[-1].append(passed)
                passed += num_lines

    def place(self, rank: int, piece: int, line: int) -> tuple[Path, int]:
        """(file, its line) of a line of a task's piece; all lines are counted from 1."""
        found = self._tasks[rank][piece]
        return found.file, self._before[rank][piece] + line
