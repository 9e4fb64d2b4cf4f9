"""What a user sees and what stays on disk."""

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from glm130b.training.metrics import Record
from glm130b.training.sinks.console import Console
from glm130b.training.sinks.json_lines import JsonLines

VALUES = {
    "loss": 6.25,
    "loss/mask": 5.5,
    "loss/gmask": 6.5,
    "loss/instruction": 4.125,
    "gradient_norm": 1.5,
    "learning_rate": 8e-5,
    "batch_size": 4224,
    "tokens_per_second": 392_512.4,
    "seconds": 22.0,
}


def train_record(step: int, **values: float) -> Record:
    return Record(kind="train", step=step, samples=8 * step, values=VALUES | values)


def printed(*records: Record, header_every: int = 25) -> list[str]:
    stream = io.StringIO()
    console = Console(stream, header_every=header_every)
    for record in records:
        console.write(record)
    console.close()
    return stream.getvalue().splitlines()


def column_ends(header: str) -> list[int]:
    return [index for index, letter in enumerate(f"{header} ") if letter == " " and index and header[index - 1] != " "]


def test_a_step_is_one_aligned_line() -> None:
    header, line = printed(train_record(3))
    assert header.split() == ["step", "loss", "mask", "gmask", "instr", "gradnorm", "lr", "batch", "tok/s"]
    assert line.split() == ["3", "6.2500", "5.5000", "6.5000", "4.1250", "1.5000", "8.0e-05", "4224", "392,512"]
    assert column_ends(line) == column_ends(header)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"loss": 123_456.789, "loss/mask": 1e9},
        {"gradient_norm": 3.4e38},
        {"gradient_norm": math.inf, "loss": math.nan},
        {"tokens_per_second": 123_456_789.0, "batch_size": 100_000},
        {"learning_rate": 0.0, "loss": 0.0},
    ],
)
@pytest.mark.parametrize("step", [1, 999_999, 12_345_678])
def test_large_numbers_stay_in_their_columns(step: int, values: dict[str, float]) -> None:
    header, line = printed(train_record(step, **values))
    assert len(line) <= 80
    assert column_ends(line) == column_ends(header)
    assert len(line.split()) == len(header.split())


def test_an_objective_without_rows_shows_a_dash() -> None:
    values = {name: value for name, value in VALUES.items() if name != "loss/instruction"}
    header, line = printed(Record(kind="train", step=1, samples=8, values=values))
    assert line.split()[4] == "-"
    assert column_ends(line) == column_ends(header)


def test_a_validation_line_has_losses_only() -> None:
    losses = {name: value for name, value in VALUES.items() if name.startswith("loss")}
    header, line = printed(Record(kind="validation", step=100, samples=800, values=losses))
    assert line.split() == ["valid", "6.2500", "5.5000", "6.5000", "4.1250"]
    assert column_ends(line) == column_ends(header)[:5]
    assert line == line.rstrip()


def test_the_header_comes_again() -> None:
    lines = printed(*(train_record(step) for step in range(1, 6)), header_every=2)
    assert [line.split()[0] for line in lines] == ["step", "1", "2", "step", "3", "4", "step", "5"]


def write_steps(path: Path, steps: range, *, resume_step: int) -> None:
    sink = JsonLines(path, resume_step=resume_step)
    for step in steps:
        sink.write(train_record(step))
    sink.close()


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_every_line_is_json_of_its_record(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonLines(path, resume_step=0)
    records = [train_record(1), train_record(2, gradient_norm=math.inf)]
    for record in records:
        sink.write(record)
        assert json.loads(path.read_text().splitlines()[-1]) == record.to_dict()  # there before the sink is closed
    sink.close()
    assert "Infinity" not in path.read_text()
    assert path.read_text().endswith("\n")


def test_resuming_drops_what_will_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 8), resume_step=0)
    write_steps(path, range(5, 7), resume_step=4)
    assert steps_in(path) == [1, 2, 3, 4, 5, 6]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_run_that_starts_anew_starts_its_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for _ in range(2):
        write_steps(path, range(3), resume_step=0)  # step 0: the validation before the first step
    assert steps_in(path) == [0, 1, 2]


@pytest.mark.parametrize("cut", [1, 20, -3])
def test_a_half_written_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 4), resume_step=0)
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:2]) + whole[2].rstrip("\n")[:cut])
    write_steps(path, range(3, 5), resume_step=3)
    assert steps_in(path) == [1, 2, 3, 4]


@pytest.mark.parametrize("line", ["", "null", "7", "[]", '{"kind": "train"}', '{"step": "x"}', '{"step": null}'])
def test_a_line_that_is_no_record_is_dropped(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    write_steps(path, range(3, 4), resume_step=2)
    assert steps_in(path) == [1, 2, 3]


def test_a_killed_run_keeps_what_it_wrote(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from glm130b.training.metrics import Record\n"
        "from glm130b.training.sinks.json_lines import JsonLines\n"
        "sink = JsonLines(Path(sys.argv[1]), resume_step=0)\n"
        "for step in range(1, 4):\n"
        "    sink.write(Record(kind='train', step=step, samples=step, values={'loss': 1.0}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "metrics.jsonl"
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    assert steps_in(path) == [1, 2, 3]
