"""Many random inputs, each watched: it ends in time, and nothing in it is executed.

A fuzz test states what else must hold of its input, such as ``ends_well``.
"""

import hashlib
import io
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from glm130b.cli import main
from glm130b.config.errors import UserError

Input = TypeVar("Input")
Result = TypeVar("Result")

SECONDS = 60.0
"""For one example; far more than any takes, on a machine that does other things too."""

EXECUTES = {
    "ctypes.dlopen",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pickle.find_class",
    "pty.spawn",
    "socket.connect",
    "subprocess.Popen",
}
"""Audit events of Python (PEP 578) that no input may cause: code and other programs are run through them."""


class _Watch:
    """Notes audit events while an example runs. A hook stays for ever, so there is one."""

    def __init__(self) -> None:
        self.noted: list[str] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.noted is not None and event in EXECUTES:
            self.noted.append(f"{event} {arguments}")


_WATCH = _Watch()


def numbers(few: int, many: int) -> pytest.MarkDecorator:
    """Runs a test, which takes ``examples``, with few of them in ``make test`` and with many in ``make test-full``."""
    sizes = [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.full)]
    return pytest.mark.parametrize("examples", sizes)


def search(check: Callable[[Input], None], inputs: SearchStrategy[Input], *, examples: int) -> None:
    """Look for an input that fails the check, takes too long or is executed; the same inputs every time."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def watched(value: Input) -> None:
        with _nothing_executed(), deadline(SECONDS):
            check(value)

    watched()


def ends_well(act: Callable[[], Result]) -> Result | None:
    """What comes of it, or None when it is refused with sentences that a user can read."""
    try:
        return act()
    except UserError as error:
        problems = error.problems
    assert problems
    assert all(problem.strip() and problem.isprintable() for problem in problems), problems
    return None


def command(words: list[str]) -> int:
    """The exit status of ``glm130b``: 0, or 2 for what a user has to mend."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            status = main(words)
        except SystemExit as end:  # argparse refuses the words themselves
            status = end.code if isinstance(end.code, int) else 1
    assert status in (0, 2)
    return status


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its hash."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Fails what is not done in time; the alarm of pytest's own time limit is put back."""

    def ring(*_: object) -> None:
        pytest.fail(f"not done after {seconds:g} s")

    began, handler = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001) if left else 0)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def _nothing_executed() -> Iterator[None]:
    noted = _WATCH.noted = []
    try:
        yield
    finally:
        _WATCH.noted = None
    assert not noted
