"""Curves of all runs in one chart, with what the stability guard saw and did."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from glm130b.report.chart import Chart
from glm130b.report.curves import CurveChart
from glm130b.report.downsampling import extremes, running_mean
from glm130b.report.figures import DASHES, SYMBOLS, Look, Trace, curve, frame, key, marks
from glm130b.report.incidents import Kind, incidents
from glm130b.report.reading import Column, Happening, RunHistory, Table

_MOST_POINTS = 2000
"""Of a chart; its curves share them."""
_FEWEST_POINTS = 600
"""Of a curve, however many there are."""
_STEEP = 0.02
"""Share of a run's steps in which its loss falls from that of chance."""
_MOST_KEYS = 12
_FEWEST_TO_SMOOTH = 50


def curve_chart(spec: CurveChart, runs: Sequence[RunHistory]) -> Chart | None:
    """One run's curves differ by colour; those of several by the run's colour and their dashes. None without values."""
    found = [list(_columns(spec, run)) for run in runs]
    labels = list(dict.fromkeys(label for columns in found for label, _, _ in columns))
    if not labels:
        return None
    one = len(runs) == 1
    most = max(_FEWEST_POINTS, _MOST_POINTS // sum(map(len, found)))
    traces: list[Trace] = []
    for index, (run, columns) in enumerate(zip(runs, found, strict=True)):
        for label, steps, values in columns:
            place = labels.index(label)
            look = Look(
                run=index,
                colour=place if one else index,
                dash="solid" if one else DASHES[place % len(DASHES)],
                label=label if len(labels) > 1 else "",
                run_name="" if one and len(labels) > 1 else run.name,
                form=spec.form,
            )
            traces += _lines(spec, look, steps, values, most=most)
        if spec.marks:
            traces += _guard_marks(run, spec.marks, index=index, colour=1 if one else index)
    note = spec.note
    if len(labels) > _MOST_KEYS:
        note = f"{note} {len(labels)} curves; the pointer names them.".strip()
    elif len(labels) > 1:
        traces += [
            key(label, colour=place if one else None, dash="solid" if one else DASHES[place % len(DASHES)])
            for place, label in enumerate(labels)
        ]
    height = 240 if spec.is_small else 340
    layout = frame(unit=spec.unit, is_log=spec.is_log, is_from_zero=spec.is_from_zero, form=spec.form, height=height)
    if spec.is_steep_at_first:
        top = max(_top(steps, values) for columns in found for _, steps, values in columns)
        layout["yaxis"]["autorangeoptions"] = {"clipmax": top}
    figure = {"data": traces, "layout": layout}
    return Chart(spec.key, spec.section, spec.title, spec.unit, note, figure, is_small=spec.is_small)


def _lines(spec: CurveChart, look: Look, steps: Column, values: Column, *, most: int) -> Iterator[Trace]:
    """The curve itself; of a noisy one also its running mean."""
    is_noisy = spec.is_noisy and len(steps) > _FEWEST_TO_SMOOTH
    kept = extremes(values, most=most)
    yield curve(steps[kept], values[kept], look, role="noise" if is_noisy else "curve")
    if is_noisy:
        mean = _smooth(values, is_log=spec.is_log)
        kept = extremes(mean, most=most)
        yield curve(steps[kept], mean[kept], look, role="mean")


def _columns(spec: CurveChart, run: RunHistory) -> Iterator[tuple[str, Column, Column]]:
    """The label, steps and values of each curve; only where a value was recorded."""
    for line in spec.lines:
        table: Table = getattr(run, line.kind)
        names = {line.pattern: line.label} if line.label else table.matching(line.pattern)
        for name, label in names.items():
            values = table.get(name)
            recorded = ~np.isnan(values)
            if np.isfinite(values).any():
                yield label or name, table.steps[recorded], values[recorded]


def _smooth(values: Column, *, is_log: bool) -> Column:
    """A running mean over a fiftieth of the run; on a logarithmic axis of the logarithms, as the eye would draw it."""
    window = max(8, len(values) // 50)
    if not is_log:
        return running_mean(values, window=window)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.exp(running_mean(np.log(values), window=window))


def _guard_marks(run: RunHistory, column: str, *, index: int, colour: int) -> Iterator[Trace]:
    """Spikes and actions of the rules of this signal at the values that broke them, and steps that were not finite."""
    values = run.train.get(column)
    if not np.isfinite(values).any():
        return
    top = _top(run.train.steps, values)
    by_kind: dict[Kind, list[Happening]] = {Kind.ACTION: [], Kind.SPIKE: []}
    for kind, event in incidents(run):
        if kind in by_kind and event.name in {column.replace("_", " "), "not finite"}:
            by_kind[kind].append(event)
    for kind, events in by_kind.items():
        if events:
            steps = [event.step for event in events]
            heights = [_height(event, run.train.steps, values, top) for event in events]
            texts = [f"{event.name}: {event.message}" for event in events]
            yield marks(steps, heights, texts, run=index, colour=colour, symbol=SYMBOLS[kind])
    wild = run.train.steps[np.isinf(values)]
    if len(wild):
        wild = wild[:: -(-len(wild) // 1000)]
        texts = [f"{column.replace('_', ' ')} was not finite"] * len(wild)
        yield marks(list(wild), [top] * len(wild), texts, run=index, colour=colour, symbol="triangle-up-open")


def _top(steps: Column, values: Column) -> float:
    """The largest of the finite values after the steep beginning; of all, where none is later."""
    finite = np.isfinite(values)
    settled = finite & (steps > steps[-1] * _STEEP)
    return float(values[settled if settled.any() else finite].max())


def _height(event: Happening, steps: Column, values: Column, top: float) -> float:
    """Where a mark stands: at the value that the event tells, else at the curve, else at its top."""
    told = event.details.get("value")
    if isinstance(told, (int, float)) and math.isfinite(told):
        return float(told)
    place = min(int(np.searchsorted(steps, event.step)), len(steps) - 1)
    return float(values[place]) if np.isfinite(values[place]) else top
