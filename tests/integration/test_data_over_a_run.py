"""What a user does to the data of a run: changes its mixture, passes over steps, asks what a step has read."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import Command
from tests.integration.test_main_job import SHORT, metrics, run_folder

ALONE = ["parallel.tensor=1", "parallel.pipeline=1", "parallel.data=1", "logging.wandb=disabled", "name=changed"]


@pytest.mark.full
def test_a_mixture_changes_and_steps_are_passed_over_and_the_past_can_be_read(
    root: Path, demo: list[str], command: Command
) -> None:
    config = [root / "configs" / "tiny.yaml", *demo, *SHORT, *ALONE]
    changes = ["train_samples=80", "data.text.code.weight=0.9", "data.skip_steps=[{from_step: 5, steps: 2}]"]

    def train(*overrides: str) -> str:
        return command([sys.executable, root / "launch" / "pretrain.sh", *config, *overrides])

    def samples(*words: str) -> str:
        return command(["glm130b", "samples", *config, *words])

    train("train_samples=32", "data.workers=1")
    before = [samples("train_samples=80", "--step", str(step)) for step in range(4)]
    assert "mixed in another way from sample 32 on" in train(*changes)

    folder = run_folder(demo, "changed")
    records = metrics(folder)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 8, 9, 10]
    assert [record["skipped_steps"] for record in records] == [0] * 5 + [2] * 3
    last = {name: count // 256 for name, count in records[-1].items() if name.startswith("tokens/")}
    assert sum(count for name, count in last.items() if "." in name) == 64  # rows of 256 tokens, without the skipped
    assert sum(count for name, count in last.items() if "." not in name) == 64
    described = json.loads((folder / "checkpoints" / "step-00000010" / "run.json").read_text())
    assert [(era["from_samples"], era["text"]["code"]["start"]) for era in described["eras"]] == [(0, 0.2), (32, 0.9)]

    # The past is what it was, whatever the config says now.
    assert [samples(*changes, "--step", str(step)) for step in range(4)] == before
    assert "passed over" in samples(*changes, "--step", "6")
    later = [samples(*changes, "--step", str(step)) for step in (4, 7, 8, 9)]
    assert sum(step.count("data.text.code") for step in later) > sum(step.count("data.text.code") for step in before)

    # A document that a step names is found again, in that step.
    sample, place, text_hash = re.findall(
        r"^sample (\d+): .*\n  1\. (\S+:\d+) \(hash ([0-9a-f]{32})\)", before[2], re.MULTILINE
    )[0]
    found = samples(*changes, "--find", text_hash)
    assert place in found
    assert f"sample {sample} of step 2" in found
