"""What a user sees."""

import io
import math

import pytest

from glm130b.training.journal import Event
from glm130b.training.metrics import Record
from glm130b.training.sinks.console import Console

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


def printed(*records: Record, header_every: int = 25, has_smask: bool = False) -> list[str]:
    stream = io.StringIO()
    console = Console(stream, header_every=header_every, has_smask=has_smask)
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
@pytest.mark.parametrize("step", [1, 999_999, 9_999_999])
def test_large_numbers_stay_in_their_columns(step: int, values: dict[str, float]) -> None:
    header, line = printed(train_record(step, **values, **{"loss/smask": 5.75}), has_smask=True)
    assert len(line) <= 80
    assert column_ends(line) == column_ends(header)
    assert len(line.split()) == len(header.split())


def test_an_objective_without_rows_shows_a_dash() -> None:
    values = {name: value for name, value in VALUES.items() if name != "loss/instruction"}
    header, line = printed(Record(kind="train", step=1, samples=8, values=values))
    assert line.split()[4] == "-"
    assert column_ends(line) == column_ends(header)


def test_rows_of_smask_have_a_column_where_the_run_has_them() -> None:
    header, line = printed(train_record(1, **{"loss/smask": 5.75}), has_smask=True)
    assert header.split()[3] == "smask"
    assert line.split()[3] == "5.7500"
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


def test_an_event_is_one_line_between_the_steps() -> None:
    stream = io.StringIO()
    console = Console(stream)
    console.write(train_record(1))
    console.tell(Event("spike", 12, "loss 9.1 is 30 deviations above 4.2", {"loss": 9.1}))
    assert stream.getvalue().splitlines()[2] == "glm130b: step 12: spike: loss 9.1 is 30 deviations above 4.2"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar_below_every_line() -> None:
    stream = Terminal()
    console = Console(stream, total_samples=80)
    console.write(train_record(1, batch_size=8, seconds=2.0))
    console.tell(Event("spike", 1, "told"))
    console.write(train_record(2, batch_size=8, seconds=2.0))
    shown = stream.getvalue()
    assert "16 of 80 samples, 4.0/s, 16 s left" in shown
    told = shown.index("glm130b: step 1: spike: told\n")
    assert shown[:told].endswith("\r"), "the bar is not away when a line is printed"
    assert "8 of 80 samples" in shown[told:], "the bar is not back after a line"
    console.close()
    assert stream.getvalue().rsplit("\r", maxsplit=2)[-2].strip() == "", "the bar stays behind"


def test_a_file_has_no_bar() -> None:
    stream = io.StringIO()
    console = Console(stream, total_samples=80)
    console.write(train_record(1))
    console.close()
    assert "\r" not in stream.getvalue()
    assert "samples" not in stream.getvalue()


def test_a_complaint_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    Console(stream).complain("TensorBoard: no space left on device")
    assert capsys.readouterr().err == "glm130b: TensorBoard: no space left on device\n"
    assert stream.getvalue() == ""
