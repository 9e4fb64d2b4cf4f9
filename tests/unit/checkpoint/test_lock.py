"""Two runs on one folder, with real processes."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glm130b.checkpoint.lock import RunLock
from glm130b.config.errors import UserError

HOLD = """
import os, sys, time
from pathlib import Path
from glm130b.checkpoint.lock import RunLock
lock = RunLock.take(Path(sys.argv[1]))
child = os.fork() if sys.argv[2] == "fork" else None
if child != 0:
    print(child or "held", flush=True)
time.sleep(60)
"""


@contextmanager
def holder(folder: Path, kind: str = "alone") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds the lock, and what it says once it does."""
    with subprocess.Popen([sys.executable, "-c", HOLD, folder, kind], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_second_run_is_told_of_the_first(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _):
        began = time.monotonic()
        with pytest.raises(UserError) as raised:
            RunLock.take(tmp_path, patience_seconds=0.3)
        assert 0.3 <= time.monotonic() - began < 30
        start = json.loads((tmp_path / "lock").read_text())["start"]
        (problem,) = raised.value.problems
        assert problem == (
            f"{tmp_path}: process {process.pid} on {socket.gethostname()}, started {start}, is at work in it; wait for "
            "its end or end it, or give this run another name"
        )


def test_the_kernel_takes_it_back_at_any_death(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _):
        threading.Timer(0.3, process.kill).start()
        lock = RunLock.take(tmp_path, patience_seconds=60)  # meets its past, which then dies
        assert process.wait() == -signal.SIGKILL
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert lock.warning is None
    lock.release()


def test_a_child_that_outlives_the_run_does_not_hold_it(tmp_path: Path) -> None:
    with holder(tmp_path, "fork") as (process, child):
        try:
            process.kill()
            process.wait()
            os.kill(int(child), 0)  # lives
            RunLock.take(tmp_path, patience_seconds=60).release()  # it may not have been scheduled yet since its birth
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_started_program_does_not_hold_it(tmp_path: Path) -> None:
    lock = RunLock.take(tmp_path)
    with subprocess.Popen(["sleep", "60"], close_fds=False) as sleeper:
        lock.release()
        RunLock.take(tmp_path, patience_seconds=0).release()
        sleeper.kill()


def test_release(tmp_path: Path) -> None:
    lock = RunLock.take(tmp_path / "runs" / "new")
    with pytest.raises(UserError, match=f"process {os.getpid()} on "):
        RunLock.take(lock.path.parent, patience_seconds=0)
    lock.release()
    lock.release()
    again = RunLock.take(lock.path.parent, patience_seconds=0)
    assert len(again.path.read_text().splitlines()) == 1
    again.release()


def test_a_holder_that_has_not_signed_yet(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=f"^{tmp_path}: another process is at work in it; wait"):
            RunLock.take(tmp_path, patience_seconds=0)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = RunLock.take(tmp_path)
    assert lock.warning == (
        f"{tmp_path}/lock: this file system has no locks ({os.strerror(number)}); see to it that no second run writes "
        "into the folder"
    )
    lock.release()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"lock: cannot be written \(Not a directory\); name a folder"):
        RunLock.take(tmp_path / "file" / "run")
