"""The endurance benchmark, a few kills of it: what a supervised run survives is decided here on every change."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 5


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_a_run_that_is_killed_again_and_again_ends_as_the_undisturbed_one(root: Path, demo: list[str]) -> None:
    command = [sys.executable, root / "benchmarks" / "chaos.py", "--kills", KILLS, root / "configs" / "tiny.yaml"]
    data = [word for word in demo if not word.startswith("folder=")]
    finished = subprocess.run(
        [*map(str, command), *data],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=580,
    )
    assert finished.returncode == 0, finished.stdout
    assert f"\nkills: {KILLS} " in finished.stdout
    assert re.search(r"^lost per kill: \d+\.\d s", finished.stdout, re.MULTILINE)
    assert finished.stdout.rstrip().endswith("bit-identical")
