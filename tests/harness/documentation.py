"""The commands that the pages of the documentation show."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROGRAMS = (
    "bash",
    "deepspeed",
    "docker",
    "echo",
    "glm130b",
    "make",
    "pip",
    "python",
    "sbatch",
    "tensorboard",
    "torchrun",
    "touch",
    "wandb",
)
"""What a line of a code block begins with to be a command, after variables that are set for it."""

NEEDS = re.compile(r"\bneeds (?:a cluster|a GPU|an account|a terminal)\b")
"""In the comment of a command that no test can run here."""


class Documented(NamedTuple):
    """A command as it stands on a page."""

    page: str
    number: int
    """Of its first line."""
    words: tuple[str, ...]
    """As a shell would cut them."""
    line: str
    """What stands there, with its comment."""

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def is_marked(self) -> bool:
        """Whether its comment says that it needs what a test does not have."""
        return bool(NEEDS.search(self.line.partition(" #")[2]))

    @property
    def place(self) -> str:
        return f"{self.page}:{self.number}: {self.text}"


def pages(root: Path) -> list[Path]:
    """Every page that users read."""
    single = [root / "README.md", root / "CONTRIBUTING.md"]
    return [*single, *sorted((root / "docs").glob("*.md")), *sorted((root / "benchmarks").glob("*.md"))]


def commands(root: Path) -> list[Documented]:
    """All commands of all pages."""
    return [
        command
        for page in pages(root)
        for command in commands_of(page.read_text(), page=page.relative_to(root).as_posix())
    ]


def commands_of(text: str, *, page: str) -> Iterator[Documented]:
    """The lines of indented and of plain fenced blocks that begin with one of ``PROGRAMS``."""
    begun, begins = "", 0
    for number, line in _code(text):
        begins = begins if begun else number
        begun += line.strip()
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        whole, begun = begun, ""
        if words := _words(whole):
            yield Documented(page, begins, words, whole)


def _words(line: str) -> tuple[str, ...] | None:
    if not re.match(rf"(?:\w+=\S* +)*(?:{'|'.join(PROGRAMS)})(?:\s|$)", line):
        return None
    return tuple(shlex.split(line, comments=True))


def _code(text: str) -> Iterator[tuple[int, str]]:
    """The lines of code blocks with their numbers; blocks of a named language are no commands."""
    fence, may_begin = None, True
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fence = line[3:].strip() if fence is None else None
        elif fence is not None:
            if fence in ("", "bash", "console", "sh"):
                yield number, line
        elif line.startswith("    ") and may_begin:
            yield number, line
            continue
        may_begin = not line.strip()
