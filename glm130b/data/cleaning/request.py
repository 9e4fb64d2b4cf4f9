"""What ``glm130b clean`` is asked for, and the tasks it is cut into."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm130b.config.errors import UserError
from glm130b.data.cleaning.thresholds import FilterName, Language
from glm130b.data.reading.pieces import Piece, Reading, cut
from glm130b.data.reading.rejection import Damaged

Task = tuple[Piece, ...]
"""Pieces that one process cleans at a time, one after the other in the order of the input."""

# Near-duplicate removal opens one file of every task at once, and a process may commonly open 1024.
_MOST_TASKS = 512


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """Files to clean, and how."""

    files: tuple[Path, ...]
    filters: tuple[FilterName, ...]
    """Asked in this order; the first that says no drops the document."""
    near_duplicates: bool
    """Whether of documents that are nearly the same the first stays alone."""
    language: Language
    text_field: str = "text"
    keep_dropped: bool = False
    task_bytes: int = 32 << 20
    """Of the files as they lie on disk; more where there would be too many tasks."""

    @property
    def reading(self) -> Reading:
        return Reading(text_field=self.text_field)

    def options(self) -> dict[str, Any]:
        """As a user wrote them."""
        return {
            "filters": list(self.filters),
            "near_duplicates": self.near_duplicates,
            "language": self.language,
            "text_field": self.text_field,
        }

    def tasks(self) -> list[Task]:
        """The tasks in the order of their documents; they depend on no number of workers.

        Raises UserError with every file that cannot be read.
        """
        problems: list[str] = []
        least = max(self.task_bytes, -(-sum(map(_size, self.files)) // _MOST_TASKS))
        tasks = list(self._gathered(least, problems))
        if problems:
            raise UserError(problems)
        return tasks

    def _gathered(self, least: int, problems: list[str]) -> Iterator[Task]:
        gathered: list[Piece] = []
        work = 0
        for file in self.files:
            try:
                for piece in cut(file, reading=self.reading, piece_bytes=least):
                    gathered.append(piece)
                    work += piece.work
                    if work >= least:
                        yield tuple(gathered)
                        gathered, work = [], 0
            except OSError as error:
                problems.append(f"{file}: cannot be read ({error.strerror}); name a file with documents")
            except Damaged as error:
                problems.append(f"{file}: {error}")
        if gathered:
            yield tuple(gathered)

    def key(self, tasks: list[Task]) -> str:
        """Says all that the work depends on; work that was begun under another key is of no use."""
        pieces = [
            [[str(piece.file), piece.size, piece.modified, piece.start, piece.end] for piece in task] for task in tasks
        ]
        return json.dumps({**self.options(), "keep_dropped": self.keep_dropped, "tasks": pieces})


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
