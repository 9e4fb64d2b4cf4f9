"""The four commands, on checkpoints as a run writes them."""

import hashlib
import json
import os
import re
import time
from argparse import ArgumentParser
from pathlib import Path

import pytest

from glm130b.checkpoint import command
from glm130b.checkpoint.checksums import CHECKSUMS, summed_files, to_json
from glm130b.checkpoint.command import add_arguments
from glm130b.checkpoint.description import Resume
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.layout import Layout
from glm130b.checkpoint.lock import RunLock
from glm130b.config.errors import UserError
from glm130b.config.interventions import Intervention, SkipRange
from glm130b.durable import FileSummary
from glm130b.training.progress import Progress
from glm130b.training.stability.memory import Memory
from tests.harness.checkpoints import save_small
from tests.harness.synthetic import small_config


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints")
    (tmp_path / "run").mkdir()
    return folder


def run(*words: object) -> int:
    parser = ArgumentParser()
    add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def rewrite(checkpoint: Path, name: str, content: bytes) -> None:
    """Change a file together with its checksum, as somebody who means to."""
    (checkpoint / name).write_bytes(content)
    summaries = summed_files(checkpoint)
    summaries[name] = FileSummary(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (checkpoint / CHECKSUMS).write_text(to_json(summaries))


def test_inspect(folder: CheckpointFolder, capsys: pytest.CaptureFixture[str]) -> None:
    guard = Memory(
        interventions=(
            Intervention(from_samples=80, learning_rate_factor=0.5, rewarm_samples=16),
            Intervention(from_samples=96, skip=SkipRange(from_step=12, steps=3), reason="spike"),
        )
    )
    resumes = (Resume("2026-01-02T03:04:05+00:00", 20, 8, {"optimizer.weight_decay": (0.1, 0.2)}),)
    checkpoint = save_small(
        folder,
        30,
        config=small_config().model_copy(
            update={"interventions": (Intervention(from_samples=8, alpha_factor=0.5, over_samples=4),)}
        ),
        progress=Progress(step=30, samples=12_240, skipped_updates=2, skipped_steps=3),
        guard=guard,
        resumes=resumes,
    )
    assert run("inspect", checkpoint) == 0
    page = capsys.readouterr().out
    versions = json.loads((checkpoint / "run.json").read_text())["versions"]
    assert page.splitlines() == [
        f"{checkpoint}: small after step 30, 12,240 samples",
        "  2 updates skipped, 3 steps passed over",
        f"  written by {', '.join(f'{name} {it}' for name, it in versions.items())}",
        "  4 tensors of 58 numbers, 29 of them weights, in 1 file of 232 B, with optimizer state",
        "  intervention of the stability guard from sample 80 on: learning rate x 0.5, warmed up again over 16 samples",
        "  intervention of the stability guard from sample 96 on: 3 steps from 12 on passed over (spike)",
        "  intervention of the user from sample 8 on: alpha x 0.5, over 4 samples",
        "  resumed 2026-01-02T03:04:05+00:00 at step 20 on 8 processes",
        "    optimizer.weight_decay: 0.1 -> 0.2",
    ]
    for other in (folder.path, folder.path.parent):
        assert run("inspect", other) == 0
        assert capsys.readouterr().out == page


def test_inspect_lists_tensors(folder: CheckpointFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run("inspect", save_small(folder, 3, optimizer_state=False), "--tensors")
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].endswith("without optimizer state")
    assert lines[4:] == [
        "  exp_avg/bias  float32 [5]",
        "  exp_avg/weight  float32 [6, 4]",
        "  master/bias  float32 [5]",
        "  master/weight  float32 [6, 4]",
    ]


def test_verify_reads_every_byte(folder: CheckpointFolder, capsys: pytest.CaptureFixture[str]) -> None:
    save_small(folder, 10, 20)
    for named in (folder.path.parent, folder.path):
        assert run("verify", named) == 0
        assert capsys.readouterr().out == "".join(f"{folder.at(step)}: whole\n" for step in (10, 20))
    shard = folder.at(20) / "__0_0.distcp"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    assert run("verify", folder.path.parent) == 2
    assert capsys.readouterr().out == (
        f"{folder.at(10)}: whole\n{shard}: is not what was written: its SHA-256 differs\n"
    )
    assert run("verify", folder.at(10)) == 0


def test_verify_finds_gaps_and_overlaps(folder: CheckpointFolder, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_small(folder, 10)
    whole = json.loads(Layout.read(checkpoint).to_json())

    def problems(place: int, **changes: object) -> str:
        tree = json.loads(json.dumps(whole))
        tree["tensors"]["master/weight"]["chunks"][place].update(changes)
        rewrite(checkpoint, "tensors.json", json.dumps(tree).encode())
        assert run("verify", checkpoint) == 2
        return capsys.readouterr().out

    assert problems(2, offset=[1, 0]) == (
        f"{checkpoint}: master/weight: its chunks [2, 4] at [0, 0] and [2, 4] at [1, 0] overlap, and others are "
        "missing\n"
    )
    begins = whole["tensors"]["master/weight"]["chunks"][1]["byte"]
    assert problems(1, byte=begins + 4) == (
        f"{checkpoint / '__0_0.distcp'}: a chunk begins at byte {begins + 4}, and the one before ends at {begins}\n"
    )
    assert "__7_0.distcp: a chunk begins at byte" in problems(1, file="__7_0.distcp")
    assert "the chunks do not fill the shape [6, 4]" in problems(0, sizes=[1, 4])
    rewrite(checkpoint, "tensors.json", json.dumps(whole).encode())
    rewrite(checkpoint, "__0_0.distcp", (checkpoint / "__0_0.distcp").read_bytes() + b"more")
    assert run("verify", checkpoint) == 2
    assert capsys.readouterr().out == f"{checkpoint / '__0_0.distcp'}: its chunks end at byte 232 of 236\n"


def test_list(folder: CheckpointFolder, capsys: pytest.CaptureFixture[str]) -> None:
    save_small(folder, 10, 20, 30, 40, config=small_config(checkpoint={"every_steps": 10, "keep_every_steps": 20}))
    folder.set_aside(folder.at(30))
    (folder.begin(50) / "half").write_text("x" * 1500)
    (folder.path / "step-00000060").mkdir()
    three_hours_ago = time.time() - 3 * 3600
    os.utime(folder.at(10), (three_hours_ago, three_hours_ago))
    assert run("list", folder.path.parent) == 0
    out = capsys.readouterr().out
    lines = [re.sub(" {2,}", "  ", line) for line in out.splitlines()]
    assert [line.partition("old  ")[2] for line in lines] == [
        "whole",
        "whole, stays for ever",
        "damaged",
        "latest, stays for ever",
        "half-written",
        "not whole",
    ]
    assert re.fullmatch(r"step  10  80 samples  \d\.\d kB  3 hours old  whole", lines[0])
    assert re.fullmatch(r"step  50  \? samples  1\.5 kB  0 min old  half-written", lines[4])


def test_list_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no checkpoints; name the folder of a run"):
        run("list", tmp_path)
    with pytest.raises(UserError, match="is no folder; name the folder of a run"):
        run("list", tmp_path / "nowhere")


def test_prune(folder: CheckpointFolder, capsys: pytest.CaptureFixture[str]) -> None:
    save_small(folder, 10, 20, 30, 40, 50)
    (folder.begin(60) / "half").write_text("x" * 1500)
    before = names(folder.path)
    words = ("prune", folder.path.parent, "--keep-last", 1, "--keep-every", 20)
    assert run(*words, "--dry-run") == 0
    would = capsys.readouterr().out
    assert names(folder.path) == before
    assert run(*words) == 0
    assert capsys.readouterr().out == would.replace("would remove", "removed").replace("to be freed", "freed")
    assert re.sub(r"\d+\.\d kB", "N kB", would).splitlines() == [
        "would remove .step-00000060.writing, N kB",
        "would remove step-00000030, N kB",
        "would remove step-00000010, N kB",
        f"{folder.path.parent}: 3 checkpoints stay, N kB to be freed",
    ]
    assert names(folder.path) == ["latest", "step-00000020", "step-00000040", "step-00000050"]


@pytest.mark.parametrize("named", [".", "checkpoints"])
def test_prune_leaves_a_run_at_work_alone(folder: CheckpointFolder, named: str) -> None:
    save_small(folder, 10, 20)
    words = ("prune", folder.path.parent / named, "--keep-last", 1)
    lock = RunLock.take(folder.path.parent)
    with pytest.raises(UserError, match=f"process {os.getpid()} on .* is at work in it"):
        run(*words)
    lock.release()
    assert len(folder.whole()) == 2
    assert run(*words) == 0
    assert folder.whole() == [folder.at(20)]
    assert names(folder.path) == ["latest", "step-00000020"]


def test_prune_removes_what_was_set_aside_when_it_is_told_to(
    folder: CheckpointFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    save_small(folder, 10, 20, 30)
    folder.set_aside(folder.at(10))
    folder.set_aside(folder.at(20), "abandoned")

    def told(*words: str) -> list[str]:
        assert run("prune", folder.path, "--keep-last", 1, *words) == 0
        return re.sub(r"\d+\.\d kB", "N kB", capsys.readouterr().out).splitlines()

    assert told() == [
        "abandoned-step-00000020, N kB, was set aside and stays; --set-aside removes it, too",
        "damaged-step-00000010, N kB, was set aside and stays; --set-aside removes it, too",
        f"{folder.path}: 1 checkpoints stay, 0 B freed",
    ]
    before = names(folder.path)
    would = told("--set-aside", "--dry-run")
    assert names(folder.path) == before
    assert would == [
        "would remove abandoned-step-00000020, N kB",
        "would remove damaged-step-00000010, N kB",
        f"{folder.path}: 1 checkpoints stay, N kB to be freed",
    ]
    assert told("--set-aside") == [
        line.replace("would remove", "removed").replace("to be freed", "freed") for line in would
    ]
    assert names(folder.path) == ["latest", "step-00000030"]


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_prune_never_takes_the_newest(number: str, folder: CheckpointFolder) -> None:
    save_small(folder, 10)
    with pytest.raises(SystemExit):
        run("prune", folder.path.parent, "--keep-last", number)
    assert folder.whole() == [folder.at(10)]


def test_a_path_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no checkpoint, and no run that has one"):
        run("inspect", tmp_path)
    with pytest.raises(UserError, match="has no whole checkpoint to verify"):
        run("verify", tmp_path)
