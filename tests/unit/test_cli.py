"""The console command: what it lists, how it fails, and how fast ``plan`` is."""

import errno
import os
import resource
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from glm130b import __version__
from glm130b.cli import COMMANDS, main

TINY = str(Path(__file__).parents[2] / "configs" / "tiny.yaml")


def test_plan_prints_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", TINY, "model.num_layers=8", "parallel.data=null", "--world-size", "4"]) == 0
    out = capsys.readouterr().out
    assert "8 layers" in out
    assert "tensor 2 x pipeline 2 x data 1 = 4 processes" in out


@pytest.mark.parametrize(
    "words",
    [
        f"{TINY} model.num_layers=8 --world-size 4 parallel.data=null",
        f"{TINY} --world-size 4 model.num_layers=8 parallel.data=null",
        f"--world-size 4 {TINY} model.num_layers=8 parallel.data=null",
        f"{TINY} model.num_layers=4 --world-size=4 parallel.data=null model.num_layers=8",
    ],
)
def test_options_and_overrides_stand_in_any_order(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words.split()]) == 0
    out = capsys.readouterr().out
    assert "8 layers" in out
    assert "tensor 2 x pipeline 2 x data 1 = 4 processes" in out


def test_output_that_nobody_reads_ends_quietly() -> None:
    """As under ``| head``, which closes the pipe when it has its lines."""
    program = f"import sys; from glm130b.cli import main; sys.exit(main(['plan', {TINY!r}]))"
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([sys.executable, "-c", program], check=False, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_file_system_that_is_gone_is_a_message_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After which a supervisor tries again."""

    def gone(*_: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(Path, "open", gone)
    assert main(["plan", TINY]) == 1
    assert "bring its file system back" in capsys.readouterr().err


def test_a_mistake_is_a_message_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", TINY, "model.num_layer=4", "seed=-1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "glm130b: error: seed: -1 is too small; write 0 or more",
        "glm130b: error: model.num_layer: unknown key; the nearest is model.num_layers",
    ]


@pytest.mark.parametrize(
    ("words", "goes_on"),
    [
        (["plan", TINY], ""),
        (
            ["prepare", "a.txt", "--tokenizer", "t", "--output", "o"],
            "; the same command goes on where this one ended",
        ),
    ],
)
def test_an_interrupt_is_one_line_and_status_130(
    words: list[str], goes_on: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{COMMANDS[words[0]].module}.run", interrupted)
    assert main(words) == 130
    assert capsys.readouterr().err == f"glm130b: interrupted{goes_on}\n"


def test_help_lists_what_users_may_call(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    assert exited.value.code == 0
    out = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert (f"{name} " in out and str(command.summary) in out) == (command.summary is not None)
    assert "launcher-arguments" not in out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["paln"],
        ["plan"],
        ["plan", TINY, "--world"],
        ["plan", TINY, "--world-size", "4", "seed"],
        ["plan", TINY, "--sede", "seed=1"],
        ["plan", TINY, "--sede=1"],
        ["convert", "export", "run", "out", "--tensor", "8", "seed=1"],
    ],
)
def test_wrong_usage_is_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(argv)
    assert exited.value.code == 2
    assert "usage: glm130b" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--version"])
    assert exited.value.code == 0
    assert capsys.readouterr().out == f"glm130b {__version__}\n"


def test_plan_and_help_start_fast_and_without_torch() -> None:
    for words in (["plan", TINY], ["--help"]):
        program = (
            "import sys\nfrom glm130b.cli import main\n"
            f"try: main({words!r})\nexcept SystemExit: pass\n"
            "sys.exit(3 if {'torch', 'numpy', 'megatron', 'deepspeed'} & set(sys.modules) else 0)"
        )
        seconds = []
        for _ in range(3):  # the fastest of three, and of computing: the machine may be busy
            before = computed_by_children()
            assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0
            seconds.append(computed_by_children() - before)
        assert min(seconds) < 1.0


def computed_by_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
