"""``glm130b generate`` as a user calls it."""

import subprocess
import sys
from pathlib import Path

from tests.unit.inference.conftest import SavedRun


def generate(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "glm130b", "generate", *words], capture_output=True, text=True, check=False
    )


def test_prompts_are_filled_and_shown(saved_run: SavedRun) -> None:
    prompts = ("Return the [MASK] of the [MASK].", "Return")
    words = [word for prompt in prompts for word in ("--prompt", prompt)]
    done = generate(str(saved_run.folder), *words, "--max-tokens", "2", "--temperature", "0.8", "--top-k", "9")
    assert done.returncode == 0, done.stderr
    shown = [line for line in done.stdout.split("\n") if line.startswith(("prompt  ", "blank   ", "filled  "))]
    assert [line.split()[0] for line in shown] == ["prompt", "blank", "blank", "filled", "prompt", "blank", "filled"]
    assert [line for line in shown if line.startswith("prompt")] == [f"prompt  {prompt}" for prompt in prompts]
    assert shown[3].startswith("filled  Return the ")
    assert "[MASK]" not in shown[3]
    assert done.stderr == ""


def test_a_run_that_has_not_trained_is_a_message_and_status_2(tmp_path: Path) -> None:
    done = generate(str(tmp_path), "--prompt", "Return")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"glm130b: error: {tmp_path}: has no checkpoint; give the folder of a run that has trained, such as runs/tiny"
    ]
