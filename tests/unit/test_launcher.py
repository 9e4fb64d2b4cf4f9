"""Where a process finds its place, what it checks before it starts, and how it tells a user's mistake."""

import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from glm130b import launcher
from glm130b.config.errors import UserError
from glm130b.config.load import load_config
from glm130b.environment import Launch, prepare_environment
from glm130b.launcher import checked_config, main, wait_to_restart


class FakeConfig(NamedTuple):
    """What stands for a checked config: where it came from."""

    folder: str
    name: str
    given: tuple[object, ...]


TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
SLURM = {"SLURM_PROCID": "9", "SLURM_LOCALID": "3", "SLURM_NTASKS": "16"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An environment without a launcher, and no warning filter left behind."""
    fake: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", fake)
    with warnings.catch_warnings():
        yield fake


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """What ``main`` does with a request to end is undone."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    signal.set_wakeup_fd(-1)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return slept


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, Launch(rank=0, local_rank=0, world_size=1)),
        (TORCHRUN, Launch(rank=5, local_rank=1, world_size=8)),
        (SLURM, Launch(rank=9, local_rank=3, world_size=16)),
        ({**SLURM, **TORCHRUN}, Launch(rank=5, local_rank=1, world_size=8)),
        ({**SLURM, "RANK": "5"}, Launch(rank=9, local_rank=3, world_size=16)),
        ({**SLURM, "SLURM_RESTART_COUNT": "2"}, Launch(rank=9, local_rank=3, world_size=16, restarts=2)),
        (
            {**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "1", "SLURM_RESTART_COUNT": "2"},
            Launch(rank=5, local_rank=1, world_size=8, restarts=3),
        ),
    ],
)
def test_place_is_read_from_the_launchers_variables(variables: dict[str, str], place: Launch) -> None:
    assert Launch.from_environment(variables) == place


def test_a_lone_process_gets_a_place_and_an_address(environment: dict[str, str]) -> None:
    prepare_environment(Launch(rank=0, local_rank=0, world_size=1))
    assert (environment["RANK"], environment["LOCAL_RANK"], environment["WORLD_SIZE"]) == ("0", "0", "1")
    assert environment["MASTER_ADDR"] == "127.0.0.1"
    assert 1024 <= int(environment["MASTER_PORT"]) <= 65535
    assert environment["GLOO_SOCKET_IFNAME"] == "lo"
    assert environment["OMP_NUM_THREADS"] == "1"


def test_slurms_place_is_passed_on_under_the_names_that_libraries_read(environment: dict[str, str]) -> None:
    environment.update(SLURM, MASTER_ADDR="node-001", MASTER_PORT="23456")
    prepare_environment(Launch.from_environment(environment))
    assert (environment["RANK"], environment["LOCAL_RANK"], environment["WORLD_SIZE"]) == ("9", "3", "16")
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("node-001", "23456")
    assert "GLOO_SOCKET_IFNAME" not in environment


def test_what_the_user_has_set_stays(environment: dict[str, str]) -> None:
    chosen = {
        "OMP_NUM_THREADS": "4",
        "GLOO_SOCKET_IFNAME": "eth0",
        "CUDA_DEVICE_MAX_CONNECTIONS": "8",
        "DS_ACCELERATOR": "cuda",
    }
    environment.update(TORCHRUN, MASTER_ADDR="localhost", MASTER_PORT="1234", **chosen)
    prepare_environment(Launch.from_environment(environment))
    assert environment.items() >= {**TORCHRUN, "MASTER_ADDR": "localhost", "MASTER_PORT": "1234", **chosen}.items()


def test_a_job_of_many_needs_an_address(environment: dict[str, str]) -> None:
    with pytest.raises(UserError, match="MASTER_ADDR: not set in a job of 16 processes"):
        prepare_environment(Launch(rank=9, local_rank=3, world_size=16))


def test_grid_and_file_problems_come_together(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        checked_config(str(root / "configs" / "tiny.yaml"), [], Launch(rank=0, local_rank=0, world_size=3))
    keys = [problem.partition(":")[0] for problem in caught.value.problems]
    assert keys[0] == "parallel"
    assert keys[1:] == [
        "data.tokenizer",
        "data.text.english.path",
        "data.text.code.path",
        "data.text.chinese.path",
        "data.instructions.facts.path",
    ]


@pytest.mark.parametrize(("restarts", "status", "seconds"), [("0", 2, 0), ("1", 1, 600)])
def test_missing_files_are_a_mistake_at_the_first_start_only(
    restarts: str,
    status: int,
    seconds: float,
    root: Path,
    tmp_path: Path,
    environment: dict[str, str],
    naps: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Later their file system has gone: it is waited for, and the run ends so that it is started again."""
    monkeypatch.chdir(tmp_path)
    environment.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="8", TORCHELASTIC_RESTART_COUNT=restarts)
    with pytest.raises(SystemExit) as caught:
        main([str(root / "configs" / "tiny.yaml")])
    assert caught.value.code == status
    assert sum(naps) == seconds
    out, err = capsys.readouterr()
    assert err.startswith("glm130b: error: data.tokenizer: ")
    assert ("the next try is in" in out) == bool(seconds)


@pytest.mark.parametrize(("restarts", "status", "seconds"), [("0", 2, 0), ("1", 1, 600)])
def test_a_missing_config_is_a_mistake_at_the_first_start_only(
    restarts: str,
    status: int,
    seconds: float,
    environment: dict[str, str],
    naps: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="8", SLURM_RESTART_COUNT=restarts)
    with pytest.raises(SystemExit) as caught:
        main(["nowhere.yaml"])
    assert caught.value.code == status
    assert sum(naps) == seconds
    assert capsys.readouterr().err.startswith("glm130b: error: nowhere.yaml: no such file")


def test_a_mistake_in_the_config_is_not_waited_for(root: Path, tmp_path: Path, naps: list[float]) -> None:
    with pytest.raises(UserError, match=r"^parallel: ") as caught:
        checked_config(
            str(root / "configs" / "tiny.yaml"),
            [f"data.tokenizer={tmp_path}/gone"],
            Launch(rank=0, local_rank=0, world_size=3, restarts=1),
        )
    assert caught.value.exit_status == 2
    assert naps == []


@pytest.mark.parametrize(("processes", "status"), [(8, 1), (3, 2)])
def test_files_that_are_missing_after_a_run_under_torchrun_are_no_mistake(
    processes: int, status: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were there before it, so they may come back."""
    monkeypatch.chdir(tmp_path)
    main_of = runpy.run_path(str(root / "launch" / "torchrun_status.py"))["main"]
    assert main_of(1, processes, [str(root / "configs" / "tiny.yaml")]) == status
    assert main_of(1, processes, ["nowhere.yaml"]) == 1


@pytest.mark.parametrize(
    ("place", "nap", "origin"),
    [
        (Launch(rank=0, local_rank=0, world_size=16), [], ""),
        (Launch(rank=8, local_rank=0, world_size=16), [8], " on rank 8 ("),
        (Launch(rank=3, local_rank=3, world_size=16), [11], " on rank 3 ("),
    ],
)
def test_rank_0_tells_a_mistake_at_once_and_others_only_when_nobody_has_ended_them(
    place: Launch,
    nap: list[float],
    origin: str,
    environment: dict[str, str],
    naps: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment.update(RANK=str(place.rank), LOCAL_RANK=str(place.local_rank), WORLD_SIZE=str(place.world_size))
    with pytest.raises(SystemExit) as caught:
        main(["--local_rank=0", "nowhere.yaml"])
    assert caught.value.code == 2
    assert naps == nap
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"glm130b: error{origin}")
    assert "nowhere.yaml: no such file" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize(("argv", "status"), [(["--help"], 0), (["a.yaml", "-h"], 0), (["--local_rank=1"], 2)])
def test_usage_is_printed_by_one_rank(
    argv: list[str], status: int, rank: str, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    environment.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2")
    with pytest.raises(SystemExit) as caught:
        main(argv)
    out, err = capsys.readouterr()
    assert caught.value.code == status
    assert (launcher.USAGE in (err if status else out)) == (rank == "0")
    assert (out + err == "") == (rank == "1")


def test_the_run_gets_config_and_place_and_its_late_mistake_is_told_alike(
    environment: dict[str, str],
    naps: list[float],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    given: list[tuple[FakeConfig, Launch]] = []

    class FakePretrain:
        @staticmethod
        def pretrain(config: FakeConfig, launch: Launch) -> None:
            given.append((config, launch))
            raise UserError("data.text.english.path: train.bin is damaged; prepare it again")

    monkeypatch.setattr(launcher, "checked_config", lambda *given: FakeConfig(str(tmp_path / "runs"), "a", given))
    monkeypatch.setitem(sys.modules, "glm130b.pretrain", FakePretrain)
    with pytest.raises(SystemExit) as caught:
        main(["--local_rank=0", "a.yaml", "seed=1"])
    ((config, launch),) = given
    assert config.given == ("a.yaml", ["seed=1"], launch)
    assert launch == Launch(rank=0, local_rank=0, world_size=1)
    assert (tmp_path / "runs" / "a").is_dir()  # a restart takes a missing one for a file system that is gone
    assert caught.value.code == 2
    assert naps == []
    assert capsys.readouterr().err == "glm130b: error: data.text.english.path: train.bin is damaged; prepare it again\n"


@pytest.mark.parametrize("status", [0, 3, 75])
def test_the_runs_status_is_the_processs(
    status: int, environment: dict[str, str], naps: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class FakePretrain:
        @staticmethod
        def pretrain(*_: object) -> int:
            return status

    monkeypatch.setattr(launcher, "checked_config", lambda *given: FakeConfig(str(tmp_path), "a", given))
    monkeypatch.setitem(sys.modules, "glm130b.pretrain", FakePretrain)
    with pytest.raises(SystemExit) as caught:
        main(["a.yaml"])
    assert caught.value.code == status


@pytest.mark.parametrize(
    ("restarts", "ended", "slept"),
    [
        (0, None, []),
        (1, None, [5]),
        (2, None, [10]),
        (6, None, [160]),
        (7, None, [300]),
        (9999, None, [300]),
        (3, "complete\n", [20]),
        (3, "requeue\n", []),
        (0, "stopped\n", []),
    ],
)
def test_a_restart_waits_the_longer_the_more_there_were(
    restarts: int, ended: str | None, slept: list[float], naps: list[float], root: Path, tmp_path: Path
) -> None:
    config = load_config(root / "configs" / "tiny.yaml", [f"folder={tmp_path}"])
    (tmp_path / "tiny").mkdir()
    if ended:
        (tmp_path / "tiny" / "ended").write_text(ended)
    for rank in (0, 1):  # the others wait for the first one, where all meet
        wait_to_restart(config, Launch(rank=rank, local_rank=rank, world_size=8, restarts=restarts))
    assert naps == slept


def test_a_restart_is_announced_once(
    naps: list[float], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(
        root / "configs" / "tiny.yaml", [f"folder={tmp_path}", "supervision.restart_delay_seconds=0.5"]
    )
    for rank in (0, 1):
        wait_to_restart(config, Launch(rank=rank, local_rank=rank, world_size=8, restarts=2))
    assert naps == [1]
    assert capsys.readouterr().out == "glm130b: restart 2 begins in 1 s\n"


def test_a_stopped_run_is_not_started_again_by_its_supervisor(naps: list[float], root: Path, tmp_path: Path) -> None:
    config = load_config(root / "configs" / "tiny.yaml", [f"folder={tmp_path}"])
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "ended").write_text("stopped\n")
    with pytest.raises(SystemExit) as caught:
        wait_to_restart(config, Launch(rank=1, local_rank=1, world_size=8, restarts=1))
    assert caught.value.code == 3
    assert naps == []


@pytest.mark.parametrize("restarts", ["0", "1"])
def test_how_an_attempt_ended_is_forgotten_by_the_next(
    restarts: str, environment: dict[str, str], naps: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also by one that falls before it trains: the one after it is to wait."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    environment["SLURM_RESTART_COUNT"] = restarts
    environment.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ended").write_text("requeue\n")
    monkeypatch.setattr(launcher, "checked_config", lambda *given: FakeConfig(str(tmp_path), "a", given))
    monkeypatch.setattr(launcher, "prepare_environment", fail)
    with pytest.raises(ZeroDivisionError):
        main(["a.yaml"])
    assert naps == []
    assert not (tmp_path / "a" / "ended").exists()


def test_who_is_asked_to_end_before_it_trains_ends_with_1(tmp_path: Path) -> None:
    """Not by the signal, 143 to a shell: Slurm would report that for the mistake that another process has seen."""
    play = (
        "import time; from glm130b import launcher\n"
        "def wait(*_): print('waits', flush=True); time.sleep(60)\n"
        "launcher.checked_config = wait; launcher.main(['a.yaml'])"
    )
    with subprocess.Popen([sys.executable, "-c", play], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "waits\n"
        process.terminate()
        assert process.wait(timeout=30) == 1


def test_an_unexpected_error_keeps_its_trace(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(launcher, "checked_config", fail)
    with pytest.raises(ZeroDivisionError):
        main(["a.yaml"])
