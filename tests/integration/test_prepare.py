"""`glm130b prepare` as a user runs it: killed at any moment, it goes on; its memory does not grow with the input."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.unit.data.text_files import docstrings

GLM130B = Path(sys.executable).parent / "glm130b"
FILES = 8
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, the folder ``in`` whose files are a shard each, and ``expected`` as one worker makes it."""
    folder = tmp_path_factory.mktemp("prepare")
    texts = [text for _, text in docstrings()]
    write(folder / "sample.jsonl", texts)
    (folder / "in").mkdir()
    for number in range(FILES):
        write(folder / "in" / f"{number}.jsonl", enlarged(texts, 700_000, seed=number))
    train = ["tokenizer", "train", "--output", "tokenizer.model", "--pieces", "600", "sample.jsonl"]
    subprocess.run([GLM130B, *train], cwd=folder, check=True, capture_output=True, timeout=120)
    with prepare(folder, "expected", "--workers", "1") as process:
        assert process.wait(120) == 0, process.communicate()
    return folder


def enlarged(texts: Sequence[str], size: int, *, seed: int) -> list[str]:
    """As many numbered documents of these texts as have ``size`` characters."""
    generator, found = random.Random(seed), list[str]()
    while size > 0:
        found.append(f"{len(found)}: {generator.choice(texts)}")
        size -= len(found[-1])
    return found


def write(file: Path, texts: Sequence[str]) -> None:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def prepare(folder: Path, output: str, *options: str) -> "subprocess.Popen[str]":
    words = ["prepare", "--tokenizer", "tokenizer.model", "--drop-duplicates", "--output", output, *options, "in"]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [GLM130B, *words], cwd=folder, stdout=pipe, stderr=pipe, text=True, preexec_fn=_heed_interrupts
    )


def _heed_interrupts() -> None:
    """Tests that a shell started in the background were told to ignore them, and would hand that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    """Process ids of its workers."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


class Watch:
    """Looks at the shards of an output all the time, and counts how often each was made."""

    def __init__(self, output: Path) -> None:
        self._partial = output.with_name(f".{output.name}.partial")
        self._made: dict[str, set[tuple[int, int]]] = defaultdict(set)

    def look(self) -> int:
        """How many shards are finished."""
        finished = 0
        for summary in self._partial.glob("shards/*/summary.json"):
            if summary.parent.suffix != ".working":
                finished += 1
                try:
                    status = summary.stat()
                except FileNotFoundError:
                    continue
                self._made[summary.parent.name].add((status.st_ino, status.st_mtime_ns))
        return finished

    def merges(self) -> bool:
        """Whether all shards are finished and the corpus is being written."""
        self.look()
        return (self._partial / "corpus").exists()

    @property
    def times_made(self) -> list[int]:
        return [len(times) for times in self._made.values()]


def until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> bool:
    """Whether the condition came true before the process came to its good end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert process.returncode == 0, process.communicate()
    return False


def is_alive(process: int) -> bool:
    """A dead process may wait for somebody to take note of it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_killed_at_several_moments_it_goes_on_and_does_no_shard_twice(workplace: Path) -> None:
    watch = Watch(workplace / "killed")
    moments = [lambda: watch.look() >= 1, lambda: watch.look() >= 4, lambda: watch.look() >= 6]
    for moment in [*moments, watch.merges]:
        with prepare(workplace, "killed", "--workers", "2") as process:
            if not until(moment, process):  # the merge was too quick to be seen
                assert moment == watch.merges
                break
            workers = workers_of(process)
            process.kill()
        assert not (workplace / "killed").exists()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(map(is_alive, workers)):  # they end with their parent
            assert time.monotonic() < deadline
            time.sleep(0.01)
    watch.look()
    with prepare(workplace, "killed", "--workers", "2") as process:
        while process.poll() is None:
            watch.look()
            time.sleep(0.002)
        assert process.returncode == 0, process.communicate()
    assert watch.times_made == [1] * FILES
    assert contents(workplace / "killed") == contents(workplace / "expected")
    assert not list(workplace.glob(".killed*"))


def test_a_killed_worker_is_told_and_the_same_command_goes_on(workplace: Path) -> None:
    watch = Watch(workplace / "worker")
    with prepare(workplace, "worker", "--workers", "2") as process:
        assert until(lambda: watch.look() >= 2 and bool(workers_of(process)), process)
        os.kill(workers_of(process)[0], signal.SIGKILL)
        error = process.communicate(timeout=PATIENCE_SECONDS)[1]
        assert process.returncode == 2, error
    assert "the worker that read it was killed" in error
    assert "Traceback" not in error
    with prepare(workplace, "worker", "--workers", "2") as process:
        assert process.wait(PATIENCE_SECONDS) == 0, process.communicate()
    assert contents(workplace / "worker") == contents(workplace / "expected")


def test_an_interrupt_ends_all_processes(workplace: Path) -> None:
    watch = Watch(workplace / "interrupted")
    with prepare(workplace, "interrupted", "--workers", "2") as process:
        assert until(lambda: watch.look() >= 1, process)
        workers = workers_of(process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 130
    assert not any(map(is_alive, workers))


def test_no_process_imports_torch_and_memory_is_bounded(workplace: Path) -> None:
    """The sum of the processes' own peaks."""
    peaks: dict[int, int] = {}
    with prepare(workplace, "measured", "--workers", "2") as process:
        while process.poll() is None:
            for pid in (process.pid, *workers_of(process)):
                try:
                    assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
                    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                except OSError:
                    continue
                peaks[pid] = max((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), default=0)
            time.sleep(0.02)
        assert process.returncode == 0, process.communicate()
    assert len(peaks) == 3
    assert sum(peaks.values()) < 400 << 10  # KiB
