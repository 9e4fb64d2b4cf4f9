"""The command as a user gives it, on this machine's CPU."""

import json
import shutil
from pathlib import Path

import pytest

from glm130b.cli import main

pytestmark = pytest.mark.usefixtures("environment")


def preflight(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, list[str]]:
    """Exit status, and the lines that were printed."""
    capsys.readouterr()
    status = main(["preflight", "--quick", *map(str, words)])
    return status, capsys.readouterr().out.splitlines()


def failures(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("FAIL")]


def test_a_good_run_on_a_good_machine(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = preflight(capsys, *words, "--world-size", "8", "--json", tmp_path / "found.json")
    assert (status, failures(lines)) == (0, [])
    assert lines[0].endswith(": preflight for tiny")
    assert ": fit, " in lines[-1]
    assert "ok      config        tiny: TP 2 x PP 2 x DP 2, 8 of 8 processes train" in lines
    assert any(line.startswith("ok      data          text.text: ") for line in lines)
    assert not (tmp_path / "runs").exists(), "looking leaves nothing behind"

    told = json.loads((tmp_path / "found.json").read_text())
    assert told["fit"] is True
    assert len(told["findings"]) == len(lines) - 2
    assert {finding["check"]: finding["state"] for finding in told["findings"]}["GPUs"] == "skipped"


def test_in_brief_only_trouble_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, (trouble, *others, last) = preflight(capsys, *words, "--world-size", "6", "--brief")
    assert status == 2
    assert ": unfit, 1 of " in last
    assert {line.split()[0] for line in (trouble, *others)} <= {"FAIL", "warning"}


def test_without_a_config_only_the_machine_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = preflight(capsys)
    assert status == 0
    assert any("only the machine is checked" in line for line in lines)


def test_a_wrong_number_of_processes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = preflight(capsys, *words, "--world-size", "6")
    assert status == 2
    (line,) = failures(lines)
    assert "needs 8 processes, the launcher started 6; " in line
    assert ": unfit, 1 of " in lines[-1]


def test_a_machine_without_the_gpus_that_the_job_uses(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = preflight(capsys, *words, "--gpus", "4")
    assert status == 2
    (line,) = failures(lines)
    assert line.startswith("FAIL    GPUs          torch can use none of 4; reboot this machine, leave it out, or ")


def test_an_unreadable_corpus(
    words: list[str], corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "text"
    shutil.copytree(corpora / "text", stale)
    with (stale / "train.bin").open("ab") as stream:
        stream.write(b"\0\0")
    status, lines = preflight(capsys, *words, f"data.text.text.path={stale}")
    assert status == 2
    (line,) = failures(lines)
    assert "train.bin missing or not of the size in the manifest; run `glm130b prepare` again" in line

    (stale / "train.idx").unlink()
    status, lines = preflight(capsys, *words, f"data.text.text.path={stale}", "data.tokenizer=nowhere.model")
    assert [line.split()[2] for line in failures(lines)] == ["data.tokenizer:", "data.text.text.path:"]
    assert all("; make it with `glm130b " in line for line in failures(lines))


def test_a_folder_that_nobody_can_write_to(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Not even root."""
    status, lines = preflight(capsys, *words, "folder=/proc")
    assert status == 2
    assert any(line.startswith("FAIL    folder        /proc: cannot be written to") for line in lines)
    assert any("; name another folder" in line for line in failures(lines))


def test_a_disk_that_is_too_small(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """For a model of 10^16 bytes, of which nothing is ever made."""
    status, lines = preflight(capsys, *words, "model.ffn_hidden_size=1000000000000")
    assert status == 2
    (line,) = [line for line in failures(lines) if line.startswith("FAIL    disk room")]
    assert "; free " in line
    assert line.endswith(" GB, or lower checkpoint.keep_last")


def test_a_mistake_in_the_config_is_told_as_everywhere(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", *words, "model.num_layer=4"]) == 2
    assert "model.num_layer: unknown key" in capsys.readouterr().err


def test_a_report_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", "--quick", "--json", str(tmp_path / "nowhere" / "found.json")]) == 2
    assert "cannot be written (No such file or directory); name another file" in capsys.readouterr().err


@pytest.mark.full
def test_the_measurements(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["preflight", *words])
    lines = capsys.readouterr().out.splitlines()
    assert status == 0, lines
    told = {line[8:22].strip(): line[:8].strip() for line in lines}
    assert {"imports": "ok", "CPU speed": "ok", "all-reduce": "ok"}.items() <= told.items()
    assert "disk speed" in told
