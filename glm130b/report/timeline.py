"""Incidents over the steps, a lane for each kind."""

from collections.abc import Iterator, Sequence

import numpy as np

from glm130b.report.chart import Chart
from glm130b.report.curves import INCIDENTS
from glm130b.report.figures import PLACE, SYMBOLS, Trace, foreign, frame, marks
from glm130b.report.incidents import Kind, incidents
from glm130b.report.reading import RunHistory


def timeline(runs: Sequence[RunHistory]) -> Iterator[Chart]:
    """One chart, where anything happened."""
    traces = []
    for index, run in enumerate(runs):
        for kind in Kind:
            events = [event for its, event in incidents(run) if its is kind]
            if events:
                steps = [event.step for event in events]
                texts = [f"{event.name}: {event.message}" for event in events]
                points = marks(steps, [], texts, run=index, colour=index, symbol=SYMBOLS[kind])
                said = f"{foreign(run.name)}, {PLACE}<br>%{{text}}<extra></extra>"
                traces.append(points | {"y": [kind.value] * len(events), "hovertemplate": said})
    if traces:
        lanes = [kind.value for kind in reversed(Kind)]
        traces += [_extent(run, index, lane=lanes[0]) for index, run in enumerate(runs)]
        layout = frame(unit="", height=240)
        layout["yaxis"] |= {"type": "category", "categoryorder": "array", "categoryarray": lanes, "range": [-0.6, 4.6]}
        yield Chart("incidents", INCIDENTS, "Incidents", "over the run", "", {"data": traces, "layout": layout})


def _extent(run: RunHistory, index: int, *, lane: str) -> Trace:
    """Nothing to see; it makes the axis as long as the run."""
    steps = np.array([0, max(table.steps[-1] for table in (run.train, run.validation) if len(table))])
    unseen = marks(list(steps), [], [], run=index, colour=index, symbol="circle")
    return unseen | {"y": [lane, lane], "opacity": 0, "hoverinfo": "skip", "hovertemplate": None}
