"""Worker processes: one that dies is told, and two runs do not meet."""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import pytest

from glm130b.config.errors import UserError
from glm130b.data.preparation.rendering import Pair, PairsOf
from glm130b.data.preparation.workers import alone
from tests.unit.data.preparation.requests import contents, prepared, request
from tests.unit.data.text_files import write_jsonl


@dataclass(frozen=True)
class Deadly:
    """Ends the worker that renders a certain record, the first time; ``marker`` is there afterwards."""

    marker: Path
    number: int
    exit_status: int | None

    def for_shard(self, is_held_out: Callable[[str], bool]) -> PairsOf:
        return self._pairs

    def _pairs(self, record: dict[str, Any]) -> list[Pair]:
        if record["number"] == self.number and not self.marker.exists():
            self.marker.touch()
            assert parent_process(), "this process runs the tests"
            if self.exit_status is not None:
                os._exit(self.exit_status)
            os.kill(os.getpid(), signal.SIGKILL)
        return [Pair(f"prompt {record['number']}", "answer", side="")]


@pytest.mark.parametrize(
    ("exit_status", "reason"),
    [(None, "was killed, as the kernel does when memory runs out; take fewer --workers"), (3, "ended with status 3")],
)
def test_a_worker_that_dies_is_told_and_the_same_command_goes_on(
    folder: Path, tmp_path: Path, exit_status: int | None, reason: str
) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"number": i, "more": "x" * 50} for i in range(100)])
    asked = request(folder, [file], renderer=Deadly(tmp_path / "marker", 55, exit_status))
    with pytest.raises(UserError) as error:
        prepared(asked, tmp_path / "out", num_workers=2)
    (problem,) = error.value.problems
    assert f"{file}, bytes " in problem
    assert reason in problem
    assert "the same command goes on" in problem
    prepared(asked, tmp_path / "out", num_workers=2)
    prepared(asked, tmp_path / "expected")
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_a_mistake_in_a_renderer_is_no_bad_record(folder: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"other": i} for i in range(3)])
    with pytest.raises(KeyError):
        prepared(request(folder, [file], renderer=Deadly(tmp_path / "marker", 5, 3)), tmp_path / "out")


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(UserError, match="another `glm130b prepare` is at work"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_a_run_waits_for_workers_that_a_killed_one_left_behind(tmp_path: Path) -> None:
    with (tmp_path / "workers.lock").open("w") as orphan:
        fcntl.flock(orphan, fcntl.LOCK_SH)
        released: list[float] = []
        timer = threading.Timer(0.3, lambda: (released.append(time.monotonic()), fcntl.flock(orphan, fcntl.LOCK_UN)))
        timer.start()
        with alone(tmp_path):
            assert released
        timer.join()
