"""What stays on disk: every record once, whatever happens to the process and the disk."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from glm130b.training.journal import Event
from glm130b.training.metrics import Record
from glm130b.training.sinks.json_lines import JsonLines, count_events
from tests.harness.full_disk import nothing_larger_than

SPIKE = Event("spike", 12, "loss 9.1 is 30 deviations above 4.2", {"loss": 9.1})
LATER = "9999"


def train_record(step: int, **values: float) -> Record:
    return Record(kind="train", step=step, samples=8 * step, values={"loss": 6.25, "seconds": 22.0} | values)


def write_steps(folder: Path, steps: range, *, begin: int) -> None:
    """What one process does."""
    sink = JsonLines(folder)
    sink.begin(begin)
    for step in steps:
        sink.write(train_record(step))
    sink.close()


def metrics(folder: Path) -> Path:
    return folder / "metrics.jsonl"


def steps_in(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in metrics(folder).read_text().splitlines()]


def test_every_line_is_json_of_its_record(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path)
    sink.begin(0)
    for record in [train_record(1), train_record(2, gradient_norm=math.inf)]:
        sink.write(record)
        written = metrics(tmp_path).read_text()
        assert json.loads(written.splitlines()[-1]) == record.to_dict()  # there before the sink is closed
        assert "Infinity" not in written
        assert written.endswith("\n")


def test_resuming_drops_what_will_be_repeated(tmp_path: Path) -> None:
    write_steps(tmp_path, range(1, 8), begin=0)
    write_steps(tmp_path, range(5, 7), begin=4)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_rewind_drops_what_will_be_repeated_and_a_new_leg_nothing(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path)
    for begin, steps in [(0, range(6)), (3, range(4, 7)), (6, range(7, 9))]:
        sink.begin(begin)
        for step in steps:
            sink.write(train_record(step))
    assert steps_in(tmp_path) == list(range(9))


def test_a_run_that_starts_anew_starts_its_file_anew(tmp_path: Path) -> None:
    for _ in range(2):
        write_steps(tmp_path, range(3), begin=0)  # step 0: the validation before the first step
    assert steps_in(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize("cut", [1, 20, -3])
def test_a_half_written_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    write_steps(tmp_path, range(1, 4), begin=0)
    whole = metrics(tmp_path).read_text().splitlines(keepends=True)
    metrics(tmp_path).write_text("".join(whole[:2]) + whole[2].rstrip("\n")[:cut])
    write_steps(tmp_path, range(3, 5), begin=3)
    assert steps_in(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize("line", ["", "null", "7", "[]", '{"kind": "train"}', '{"step": "x"}', '{"step": null}'])
def test_a_line_that_is_no_record_voids_nothing(tmp_path: Path, line: str) -> None:
    before = f'{{"step": 1}}\n{line}\n{{"step": 2}}\n'
    metrics(tmp_path).write_text(before + '{"step": 3}\n')
    write_steps(tmp_path, range(0), begin=2)
    assert metrics(tmp_path).read_text() == before


def test_evaluations_stay_with_their_steps(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path)
    sink.begin(0)
    for step in (0, 1, 2):
        for kind in ("train", "validation") if step else ("validation",):
            sink.write(Record(kind=kind, step=step, samples=8 * step, values={}))
    JsonLines(tmp_path).begin(1)
    assert steps_in(tmp_path) == [0, 1, 1]


def test_a_full_disk_can_be_resumed_on(tmp_path: Path) -> None:
    write_steps(tmp_path, range(1, 8), begin=0)
    with nothing_larger_than(0):
        JsonLines(tmp_path).begin(4)
    assert steps_in(tmp_path) == [1, 2, 3, 4]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_folder_that_comes_back_has_all_it_had(tmp_path: Path) -> None:
    run, away = tmp_path / "run", tmp_path / "away"
    run.mkdir()
    JsonLines(run).tell(SPIKE)
    run.rename(away)
    sink = JsonLines(run)
    for act in (lambda: sink.tell(SPIKE), lambda: sink.begin(3)):
        with pytest.raises(FileNotFoundError):
            act()
    away.rename(run)
    sink.tell(SPIKE)
    assert count_events(run, before=LATER) == {"spike": 2}


def test_events_outlive_restarts_and_rewinds(tmp_path: Path) -> None:
    for _ in range(2):
        sink = JsonLines(tmp_path)
        sink.begin(0)
        sink.tell(SPIKE)
        sink.begin(0)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"name": "sp')  # a kill
    assert count_events(tmp_path, before=LATER) == {"spike": 2}
    assert count_events(tmp_path, before=SPIKE.time)["spike"] == 0
    sink = JsonLines(tmp_path)
    sink.tell(SPIKE)  # before the run knows where it goes on
    sink.begin(3)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [SPIKE.to_dict()] * 3


def test_there_are_no_events_before_the_first() -> None:
    assert count_events(Path("nowhere"), before=LATER) == {}


def test_a_line_that_did_not_fit_is_written_whole_later(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path)
    sink.begin(0)
    sink.write(train_record(1))
    size = metrics(tmp_path).stat().st_size
    with nothing_larger_than(size + 10):
        for _ in range(2):
            with pytest.raises(OSError, match="too large"):
                sink.write(train_record(2))
    assert metrics(tmp_path).stat().st_size == size + 10
    sink.write(train_record(2))
    assert steps_in(tmp_path) == [1, 2]


def test_a_killed_run_keeps_what_it_wrote(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from glm130b.training.metrics import Record\n"
        "from glm130b.training.sinks.json_lines import JsonLines\n"
        "sink = JsonLines(Path(sys.argv[1]))\n"
        "sink.begin(0)\n"
        "for step in range(1, 4):\n"
        "    sink.write(Record(kind='train', step=step, samples=step, values={'loss': 1.0}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == -9
    assert steps_in(tmp_path) == [1, 2, 3]
