"""The comparison of an ablation's runs, on recorded metrics."""

import json
import math
from pathlib import Path
from typing import Any

import comparison
import pytest
from comparison import Run


def metrics(path: Path, norms: list[float | None], *, loss: float, held_out: float | None) -> Path:
    """A ``metrics.jsonl`` as a run writes it: losses fall to ``loss`` in equal steps of 0.1."""
    losses = [loss + 0.1 * (len(norms) - step) for step in range(1, len(norms) + 1)]
    records: list[dict[str, Any]] = [{"kind": "validation", "step": 0, "samples": 0, "loss": 8.3}]
    for step, (value, norm) in enumerate(zip(losses, norms, strict=True), 1):
        speed = 1000.0 if step > 1 else 10.0  # the first step is slow
        numbers = {"loss": value, "gradient_norm": norm, "tokens_per_second": speed}
        records.append({"kind": "train", "step": step, "samples": 8 * step, **numbers})
    records.append({"kind": "validation", "step": len(norms), "samples": 8 * len(norms), "loss": held_out})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    calm: list[float | None] = [0.5] * 60
    spiky: list[float | None] = [0.5] * 60
    spiky[5] = 50.0  # too early to have twenty steps before it
    spiky[30], spiky[40], spiky[45] = 1.6, 1.4, None
    worse = Run.read(metrics(tmp_path / "1", spiky, loss=6.0, held_out=6.25), name="spiky", parameters=1234567)
    better = Run.read(metrics(tmp_path / "2", calm, loss=5.0, held_out=5.125), name="calm", parameters=1000)
    lost = Run.read(metrics(tmp_path / "3", calm, loss=5.0, held_out=None), name="lost", parameters=1000)
    return [lost, worse, better]


def test_numbers_of_a_run(runs: list[Run]) -> None:
    lost, spiky, calm = runs
    assert spiky.final_loss == pytest.approx(6.0 + 0.1 * 19.5)
    assert (spiky.num_spikes, calm.num_spikes) == (1, 0)  # 1.6 is above three times 0.5, 1.4 is not
    assert spiky.held_out == {0: 8.3, 60: 6.25}
    assert spiky.final_held_out == 6.25
    assert spiky.tokens_per_second == 1000.0
    assert math.isnan(lost.final_held_out)
    assert math.isnan(spiky.gradient_norms[45])


def test_the_table_has_the_best_run_first_and_the_lost_one_last(runs: list[Run], tmp_path: Path) -> None:
    page = comparison.write_comparison(runs, tmp_path, title="norms")
    lines = page.read_text().splitlines()
    assert lines[0] == "# norms"
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows[1:]] == ["| calm", "| spiky", "| lost"]
    assert rows[1] == "| calm | 6.950 | 5.125 | 0.500 | 0.500 | 0 | 0 | 1,000 | 1,000 |"
    assert rows[2] == "| spiky | 7.950 | 6.250 | 0.500 | 50.000 | 1 | 1 | 1,234,567 | 1,000 |"
    assert rows[3].startswith("| lost | 6.950 | nan |")
    assert "After 60 steps." in lines[-3]
    assert lines[-1] == "![Loss and gradient norm](comparison.svg)"


def test_norms_that_are_not_finite_are_counted_and_left_out(tmp_path: Path) -> None:
    """The first steps of fp16 overflow until the loss scale has come down."""
    overflowing = [None, math.inf] * 8 + [0.25, 0.75] * 15 + [None] * 4 + [4.0]
    run = Run.read(metrics(tmp_path / "m", overflowing, loss=5.0, held_out=5.0), name="fp16", parameters=1)
    assert run.num_spikes == 1
    page = comparison.write_comparison([run], tmp_path, title="fp16").read_text()
    assert "| fp16 | 6.950 | 5.000 | 0.750 | 4.000 | 1 | 20 | 1 |" in page
    lost = Run.read(metrics(tmp_path / "m", [None] * 30, loss=5.0, held_out=5.0), name="lost", parameters=1)
    assert lost.num_spikes == 0
    assert " | nan | nan | 0 | 30 | 1 | " in comparison.table([lost])


def test_the_plot_has_both_panels_and_every_run(runs: list[Run], tmp_path: Path) -> None:
    figure = comparison.plot(runs, title="norms")
    loss, norm = figure.axes
    legend = loss.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["lost", "spiky", "calm"]
    assert len(loss.lines) == 3 * 3
    assert len(norm.lines) == 3
    assert norm.get_yscale() == "log"
    comparison.write_comparison(runs, tmp_path, title="norms")
    assert (tmp_path / "comparison.svg").read_text().lstrip().startswith("<?xml")
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_short_run_is_compared_too(tmp_path: Path) -> None:
    run = Run.read(metrics(tmp_path / "m", [0.5] * 3, loss=5.0, held_out=5.0), name="short", parameters=1)
    assert run.num_spikes == 0
    assert run.final_loss == pytest.approx(5.1)
    comparison.write_comparison([run], tmp_path, title="short")
