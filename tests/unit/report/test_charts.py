"""Every chart of a run is one that Plotly takes, and says what happened."""

import base64
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from benchmarks.invented_run import invented_records, write_run
from glm130b.report.chart import Chart
from glm130b.report.charts import charts
from glm130b.report.reading import RunHistory, read_run

STEPS, LAYERS, SPIKE = 3000, 3, 1234
EVENTS = (
    {"time": "t", "step": SPIKE, "name": "gradient norm", "message": "9.5 <b>is</b> high", "details": {"value": 9.5}},
    {"time": "t", "step": 2000, "name": "loss", "message": "4 is high: alpha x 0.5", "details": {"acted": True}},
    {"time": "t", "step": 2000, "name": "checkpoint saved", "message": "step 2000", "details": {}},
    {"time": "t", "step": 2500, "name": "resume", "message": "goes on", "details": {}},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunHistory:
    records = list(invented_records(steps=STEPS, layers=LAYERS, spike_steps=[SPIKE]))
    records[100]["gradient_norm"] = None
    return read_run(write_run(tmp_path_factory.mktemp("run"), records, events=EVENTS), name="a<b>")


def numbers(packed: Mapping[str, str]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(packed["bdata"]), dtype=packed["dtype"])


def traces(found: list[Chart], key: str, role: str) -> list[dict[str, Any]]:
    (chart,) = [chart for chart in found if chart.key == key]
    return [trace for trace in chart.figure["data"] if trace["meta"]["role"] == role]


@pytest.mark.parametrize("count", [1, 2])
def test_plotly_takes_every_chart(run: RunHistory, count: int) -> None:
    found = charts([run] * count)
    for chart in found:
        go.Figure(chart.figure)  # checks every property
    assert len({chart.key for chart in found}) == len(found) == {1: 28, 2: 32}[count]


def test_the_spike_is_drawn_and_marked(run: RunHistory) -> None:
    found = charts([run])
    (noise,) = traces(found, "gradient-norm", "noise")
    steps, norms = numbers(noise["x"]), numbers(noise["y"])
    assert steps[norms.argmax() if norms.argmax() else norms[1:].argmax() + 1] == SPIKE
    spike, not_finite = traces(found, "gradient-norm", "mark")
    assert (numbers(spike["x"]).tolist(), numbers(spike["y"]).tolist()) == ([SPIKE], [9.5])
    assert spike["text"] == ["gradient norm: 9.5 &lt;b&gt;is&lt;/b&gt; high"]
    assert numbers(not_finite["x"]).tolist() == [run.train.steps[np.isinf(run.train.get("gradient_norm"))][0]]
    (action,) = traces(found, "loss", "mark")
    assert action["marker"]["symbol"] == "diamond"
    (heat,) = traces(found, "layer-gradients", "map")
    hottest = np.nanargmax(numbers(heat["z"]).reshape(LAYERS, -1)[:, 100:], axis=1) + 100
    assert np.abs(numbers(heat["x"])[hottest] - SPIKE).max() <= STEPS / 500


def test_the_first_steps_do_not_flatten_the_rest(run: RunHistory) -> None:
    """The loss axis ends where the run has settled, and the colours of layers span what is neither start nor spike."""
    found = charts([run])
    (loss,) = [chart for chart in found if chart.key == "loss"]
    losses = run.train.get("loss")
    assert loss.figure["layout"]["yaxis"]["autorangeoptions"] == {"clipmax": losses[STEPS // 50 :].max()}
    assert losses[STEPS // 50 :].max() < losses.max() - 2
    (heat,) = traces(found, "layer-gradients", "map")
    powers = numbers(heat["z"])
    assert np.mean(powers > heat["zmax"]) == pytest.approx(0.01, abs=0.005)
    assert np.mean(powers < heat["zmin"]) == pytest.approx(0.01, abs=0.005)


def test_one_run_is_told_apart_by_colours_and_several_by_dashes(run: RunHistory) -> None:
    one = traces(charts([run]), "loss-by-objective", "mean")
    assert [(trace["meta"]["colour"], trace["line"]["dash"]) for trace in one] == [(i, "solid") for i in range(3)]
    two = traces(charts([run, run]), "loss-by-objective", "mean")
    assert [(t["meta"]["run"], t["meta"]["colour"], t["line"]["dash"]) for t in two] == [
        (run, run, dash) for run in (0, 1) for dash in ("solid", "dash", "dot")
    ]


def test_the_timeline_leaves_out_what_belongs_to_every_day(run: RunHistory) -> None:
    lanes = [trace["y"][0] for trace in traces(charts([run]), "incidents", "mark")[:-1]]
    assert lanes == ["restart", "guard acted", "spike"]


def test_shares_of_many_sources_are_summed_up(tmp_path: Path) -> None:
    records = [
        {"kind": "train", "step": step, "samples": step, **{f"tokens/text.{n}": step * n for n in range(1, 21)}}
        for step in range(1, 40)
    ]
    found = charts([read_run(write_run(tmp_path, records), name="run")])
    shares = traces(found, "mixture-of-sources", "share")
    assert [trace["name"] for trace in shares] == [*(f"text.{n}" for n in range(20, 13, -1)), "13 others"]
    assert numbers(shares[0]["y"])[-1] == pytest.approx(20 / 210)
    assert numbers(shares[-1]["y"])[-1] == pytest.approx(91 / 210)


def test_a_run_of_before_has_fewer_charts(tmp_path: Path) -> None:
    """One validation, nothing else: what there is, is drawn."""
    record = {"kind": "validation", "step": 0, "samples": 0, "loss": 8.3}
    run = read_run(write_run(tmp_path, [record]), name="run")
    assert [chart.key for chart in charts([run])] == ["loss"]
    assert run.written <= datetime.now(timezone.utc)
