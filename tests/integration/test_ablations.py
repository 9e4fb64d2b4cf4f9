"""A folder of configs becomes runs, a table and a plot by one command; the same command again trains nothing."""

import re
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import Command


@pytest.mark.full
def test_a_tiny_folder_is_trained_and_compared(root: Path, demo: list[str], command: Command, tmp_path: Path) -> None:
    base = root / "configs" / "ablations" / "base.yaml"
    for placement in ("pre", "sandwich"):
        text = f"base: {base}\nname: {placement}\nmodel: {{norm_placement: {placement}}}\n"
        (tmp_path / f"{placement}.yaml").write_text(text)
    short = ["train_samples=40", "evaluation={every_steps: 10, samples: 4}"]
    runs = tmp_path / "runs"
    words = [sys.executable, root / "tools" / "ablation.py", tmp_path, *demo, *short, f"folder={runs}"]

    printed = command(words)
    rows = dict(re.findall(r"^\| (pre|sandwich) \| (\d\.\d{3}) \|", printed, re.M))
    assert rows.keys() == {"pre", "sandwich"}
    assert all(6.0 < float(loss) < 9.0 for loss in rows.values())
    assert "After 10 steps." in printed
    assert {path.name for path in runs.iterdir()} == {
        "pre",
        "sandwich",
        *(f"comparison.{s}" for s in ("md", "svg", "png")),
    }

    written = (runs / "comparison.md").stat().st_mtime_ns, (runs / "pre" / "metrics.jsonl").stat().st_mtime_ns
    again = command(words)
    assert "starts from" not in again
    assert "continues" not in again
    assert (runs / "comparison.md").stat().st_mtime_ns > written[0]
    assert (runs / "pre" / "metrics.jsonl").stat().st_mtime_ns == written[1]
