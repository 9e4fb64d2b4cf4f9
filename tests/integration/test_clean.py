"""``glm130b clean`` as a user meets it: killed, run again, its output read."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glm130b.cli import main
from glm130b.data.reading.documents import read_documents
from glm130b.data.reading.formats import find_files

pytest.importorskip("datatrove", reason="needs the packages of glm130b[clean]")

PROGRAM = """
import sys
from pathlib import Path
from glm130b.data.cleaning.cleaning import clean
from glm130b.data.cleaning.request import Cleaning

files, output = tuple(map(Path, sys.argv[2:])), Path(sys.argv[1])
asked = Cleaning(files=files, filters=("gopher-quality",), near_duplicates=True, language="en", task_bytes=8_000)
clean(asked, output, workers=2)
"""
"""``glm130b clean`` with tasks so small that there are many."""


def number_word(number: int) -> str:
    """Letters, because datatrove takes all numbers for the same."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number)) + "son"


def texts() -> list[str]:
    """Eighty documents of 180 words; every fourth is the one before it with another end."""
    found: list[str] = []
    for number in range(80):
        words = [number_word(number * place % 997) for place in range(1, 180)]
        found.append(f"{found[-1]} the end" if number % 4 == 3 else " ".join(["the", "and", "of", *words]))
    return found


def write(path: Path, rows: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return path


def contents(output: Path) -> dict[str, bytes]:
    """Of the files in the output, and the report."""
    files = [*sorted(output.iterdir()), output.with_name(f"{output.name}.report.json")]
    return {file.name.removeprefix(output.name): file.read_bytes() for file in files}


@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.jsonl", texts()[:60]), write(tmp_path / "b.jsonl", texts()[60:])]
    words = [sys.executable, "-c", PROGRAM]
    subprocess.run([*words, tmp_path / "whole", *files], check=True, timeout=180, stderr=subprocess.DEVNULL)

    markers = tmp_path / ".killed.cleaning" / "log" / "filtering" / "completions"
    running = subprocess.Popen([*words, tmp_path / "killed", *files], start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        patience = time.monotonic() + 180
        while not (markers.is_dir() and len(list(markers.iterdir())) >= 2):
            assert running.poll() is None
            assert time.monotonic() < patience
            time.sleep(0.01)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    finished = {marker.name: marker.stat().st_mtime_ns for marker in markers.iterdir()}
    rows = tmp_path / ".killed.cleaning" / "rows"
    written = {name: (rows / f"{name}.jsonl").stat().st_mtime_ns for name in finished}
    assert not (tmp_path / "killed").exists()

    watched = subprocess.Popen([*words, tmp_path / "killed", *files], stderr=subprocess.DEVNULL)
    untouched = True
    while watched.poll() is None:
        for name, then in written.items():
            try:
                untouched &= (rows / f"{name}.jsonl").stat().st_mtime_ns == then
            except FileNotFoundError:  # it is at its end and tidies up
                break
        time.sleep(0.01)
    assert watched.returncode == 0
    assert untouched, "a finished task was done again"
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    report = json.loads((tmp_path / "whole.report.json").read_text())
    assert (report["read"], report["kept"], report["near_duplicates_dropped"]) == (80, 60, 20)


def test_a_run_whose_parent_alone_is_killed_leaves_no_worker_that_writes(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", texts())
    words = [sys.executable, "-c", PROGRAM, tmp_path / "out", file]
    running = subprocess.Popen(words, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        patience = time.monotonic() + 180
        while not (tmp_path / ".out.cleaning" / "rows").is_dir():
            assert time.monotonic() < patience
            time.sleep(0.01)
        running.kill()
        running.wait()
        while _group_is_alive(running.pid):
            assert time.monotonic() < patience
            time.sleep(0.05)
    finally:
        if _group_is_alive(running.pid):
            os.killpg(running.pid, signal.SIGKILL)


def test_the_output_can_be_prepared_and_says_where_it_is_from(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.jsonl", [*texts()[:8], "short"])
    output = tmp_path / "out"
    words = [str(file), "--output", str(output), "--filters", "gopher-quality", "--near-duplicates", "--keep-dropped"]
    assert main(["clean", *words, "--workers", "1"]) == 0
    out, err = capfd.readouterr()
    assert out == f"{output}: kept 6 of 9 documents; {output}.report.json says why\n"
    assert "datatrove" not in err

    problems: list[str] = []
    kept = [text for (text,) in read_documents(find_files([output]), layouts=(("text",),), problems=problems)]
    assert kept == [texts()[number] for number in (0, 1, 2, 4, 5, 6)]
    assert not problems
    origins = [json.loads(line)["origin"] for line in (output / "00000.jsonl").read_text().splitlines()]
    assert origins == [f"{file}:{line}" for line in (1, 2, 3, 5, 6, 7)]
    dropped = [json.loads(line) for line in (tmp_path / "out.dropped" / "00000.jsonl").read_text().splitlines()]
    assert [(row["origin"], row["dropped_by"]) for row in dropped] == [
        (f"{file}:4", "near-duplicates"),
        (f"{file}:8", "near-duplicates"),
        (f"{file}:9", "gopher-quality"),
    ]


def _group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
