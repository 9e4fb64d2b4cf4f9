"""What the batches of a run were made of."""

from collections.abc import Iterator

import numpy as np

from glm130b.report.chart import Chart
from glm130b.report.curves import DATA
from glm130b.report.downsampling import shares
from glm130b.report.figures import Look, Trace, curve, frame, shade
from glm130b.report.reading import Column, RunHistory

_STRETCHES = 250
_MOST_SHARES = 8


def mixture_charts(run: RunHistory, index: int, *, suffix: str) -> Iterator[Chart]:
    """Shares of the objectives and of the sources over the steps; ``suffix`` tells the keys of several runs' charts
    apart."""
    wanted = (
        ("mixture-of-objectives", "Objectives in the batches", r"tokens/([^./]+)"),
        ("mixture-of-sources", "Sources in the batches", r"tokens/([^./]+\..+)"),
    )
    for name, title, pattern in wanted:
        found = run.train.matching(pattern)
        if len(run.train) < 2 or not found:
            continue
        parts_KT, ends = shares(np.stack([run.train.columns[column] for column in found]), most=_STRETCHES)
        labels, parts_KT = _largest(list(found.values()), parts_KT)
        traces = [
            _share(label, run.train.steps[ends], part, place=place, run=index)
            for place, (label, part) in enumerate(zip(labels, parts_KT, strict=True))
        ]
        layout = frame(unit="share of tokens", form=".0%", height=280)
        layout["yaxis"] |= {"range": [0, 1], "showgrid": False}
        figure = {"data": traces, "layout": layout}
        yield Chart(f"{name}{suffix}", DATA, title, "share of tokens", "", figure, run=index, is_small=True)


def _largest(labels: list[str], parts_KT: Column) -> tuple[list[str], Column]:
    """The largest parts, and the sum of the others where there are too many to tell apart."""
    if len(labels) <= _MOST_SHARES:
        return labels, parts_KT
    order = np.argsort(-parts_KT.sum(axis=1), kind="stable")
    kept, others = order[: _MOST_SHARES - 1], order[_MOST_SHARES - 1 :]
    names = [*(labels[place] for place in kept), f"{len(others)} others"]
    return names, np.vstack([parts_KT[kept], parts_KT[others].sum(axis=0)])


def _share(label: str, steps: Column, part: Column, *, place: int, run: int) -> Trace:
    look = Look(run=run, colour=place, dash="solid", label=label, run_name="", form=".1%")
    line = curve(steps, part, look, role="share")
    return line | {
        "stackgroup": "all",
        "showlegend": True,
        "mode": "lines",
        "fillcolor": shade(place),
        "line": line["line"] | {"width": 0.5},
    }
