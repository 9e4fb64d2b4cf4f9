"""The report as one HTML page that needs no network: text and tables here, the looks in ``page.css``, what moves in
``page.js``.

Whatever comes from a run's files is escaped, and the page forbids itself every connection.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from glm130b.report import differences
from glm130b.report.chart import Chart
from glm130b.report.curves import INCIDENTS, SECTIONS
from glm130b.report.downsampling import evenly
from glm130b.report.facts import facts, tokens_seen
from glm130b.report.incidents import incidents
from glm130b.report.palette import DARK, LIGHT, Palette
from glm130b.report.reading import RunHistory

_MOST_ROWS = 500
"""Of a run in the table of incidents."""
_AXIS_POINTS = 1000
_NOTHING_LOADED = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def page(runs: Sequence[RunHistory], charts: Sequence[Chart], *, plotly_script: str) -> Iterator[str]:
    """The page in pieces. ``plotly_script`` is trusted; nothing else is."""
    title = escape(" · ".join(run.name for run in runs))
    yield (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_LOADED}">\n'
        f"<style>\n{_colours()}\n{_asset('page.css')}</style>\n</head>\n<body>\n"
    )
    yield f"<header><h1>{title}</h1>{_remarks(runs)}</header>\n{_controls(runs)}\n<main>\n{_facts(runs)}\n"
    for section in SECTIONS:
        inside = [_card(chart, runs) for chart in charts if chart.section == section]
        if section == INCIDENTS:
            inside += _incidents(runs)
        yield from _section(section, inside)
    yield from _section("Config", list(_config(runs)))
    yield "</main>\n"
    figures = {chart.key: chart.figure for chart in charts}
    looks = {name: _look(palette) for name, palette in (("light", LIGHT), ("dark", DARK))}
    data = {
        "figures": figures,
        "axes": [_axes(run) for run in runs],
        "looks": looks,
        "runs": [run.name for run in runs],
    }
    yield f'<script type="application/json" id="report">{_inert(data)}</script>\n'
    yield f"<script>{plotly_script}</script>\n<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"


def _section(title: str, inside: Sequence[str]) -> Iterator[str]:
    if inside:
        yield f"<section><h2>{title}</h2>\n<div class=cards>\n" + "\n".join(inside) + "\n</div></section>\n"


def _controls(runs: Sequence[RunHistory]) -> str:
    """Switches for all charts; a run's stands there only where there is something to compare."""
    toggles = "".join(
        f'<button type=button class=run data-run={index} aria-pressed=true style="--colour:var(--curve-{index % 8})">'
        f"{escape(run.name)}</button>"
        for index, run in enumerate(runs)
    )
    axes = "".join(
        f"<button type=button data-axis={axis} aria-pressed={'true' if axis == 'step' else 'false'}>{axis}s</button>"
        for axis in ("step", "sample", "token")
    )
    shown = f'<div class=group role=group aria-label="Runs">{toggles}</div>' if len(runs) > 1 else ""
    return (
        f'<nav class=controls aria-label="Charts">{shown}'
        f'<div class="group joined" role=group aria-label="Horizontal axis">{axes}</div>'
        "<div class=group><button type=button id=smooth aria-pressed=true>Smooth</button>"
        "<button type=button id=reset>Whole run</button>"
        "<button type=button id=theme aria-pressed=false>Dark</button></div></nav>"
    )


def _remarks(runs: Sequence[RunHistory]) -> str:
    """What the reader should know of how this page came about."""
    newest = max(run.written for run in runs)
    lines = [f"Records until {newest:%Y-%m-%d %H:%M} UTC."]
    for run in runs:
        if run.unreadable:
            lines.append(f"{escape(run.name)}: {run.unreadable:,} lines of its files could not be read.")
    return f"<p class=quiet>{' '.join(lines)}</p>"


def _facts(runs: Sequence[RunHistory]) -> str:
    """A tile for each fact of a run; of several runs a table, a row each."""
    told = [facts(run) for run in runs]
    if len(runs) == 1:
        tiles = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in told[0])
        return f"<dl class=facts>{tiles}</dl>"
    head = "".join(f"<th scope=col>{name}</th>" for name, _ in told[0])
    rows = "".join(
        f"<tr data-of={index}><th scope=row>{_chip(run, index)}</th>"
        + "".join(f"<td>{escape(value)}</td>" for _, value in told[index])
        + "</tr>"
        for index, run in enumerate(runs)
    )
    return _scrolling(f"<table class=facts><tr><th scope=col>Run</th>{head}</tr>{rows}</table>", label="Runs")


def _card(chart: Chart, runs: Sequence[RunHistory]) -> str:
    of_run = "" if chart.run is None else f" data-of={chart.run}"
    chip = "" if chart.run is None or len(runs) == 1 else " " + _chip(runs[chart.run], chart.run)
    note = f"<p class=quiet>{escape(chart.note)}</p>" if chart.note else ""
    height = chart.figure["layout"]["height"]
    label = escape(f"{chart.title}, {chart.unit}", quote=True)
    return (
        f'<figure class="card{" small" * chart.is_small}"{of_run}><figcaption><h3>{escape(chart.title)} '
        f"<span class=unit>{escape(chart.unit)}</span>{chip}</h3>{note}</figcaption>"
        f'<div class=chart id="{chart.key}" role=img aria-label="{label}" style="min-height:{height}px"></div></figure>'
    )


def _incidents(runs: Sequence[RunHistory]) -> Iterator[str]:
    rows, hidden = [], 0
    for index, run in enumerate(runs):
        of_run = incidents(run)
        hidden += max(0, len(of_run) - _MOST_ROWS)
        for kind, event in of_run[-_MOST_ROWS:]:
            time = f"<td><time>{escape(event.time.replace('T', ' ').removesuffix('+00:00'))}</time></td>"
            cells = (kind.value, event.name, event.message)
            chip = f"<td>{_chip(run, index)}</td>" if len(runs) > 1 else ""
            texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            rows.append(f"<tr data-of={index}>{chip}<td class=number>{event.step:,}</td>{time}{texts}</tr>")
    if not rows:
        return
    which = "<th scope=col>Run</th>" if len(runs) > 1 else ""
    head = "".join(f"<th scope=col>{name}</th>" for name in ("Step", "Time (UTC)", "Kind", "Event", "What happened"))
    older = f"<p class=quiet>{hidden:,} older ones are not listed; events.jsonl has all.</p>" if hidden else ""
    yield _table(f"<tr>{which}{head}</tr>", rows, before=older)


def _config(runs: Sequence[RunHistory]) -> Iterator[str]:
    """Where the runs differ; then what the starts of each run changed."""
    if len(runs) > 1:
        differing = differences.between(runs)
        head = "".join(f"<th scope=col>{_chip(run, index)}</th>" for index, run in enumerate(runs))
        rows = [
            f"<tr><th scope=row>{escape(key)}</th>" + "".join(f"<td>{_value(value)}</td>" for value in values) + "</tr>"
            for key, values in differing
        ]
        if rows:
            yield _table(f"<tr><th scope=col>Key</th>{head}</tr>", rows, before="<h3>Where the runs differ</h3>")
        else:
            yield '<div class="card quiet">The configs of the runs are the same.</div>'
    changes = [(index, run, *change) for index, run in enumerate(runs) for change in differences.over_time(run)]
    if changes:
        which = "<th scope=col>Run</th>" if len(runs) > 1 else ""
        rows = [
            f"<tr data-of={index}>{f'<td>{_chip(run, index)}</td>' if len(runs) > 1 else ''}"
            f"<td class=number>{step:,}</td><th scope=row>{escape(key)}</th>"
            f"<td>{_value(before)}</td><td>{_value(after)}</td></tr>"
            for index, run, step, key, before, after in changes
        ]
        head = "<th scope=col>Step</th><th scope=col>Key</th><th scope=col>Before</th><th scope=col>From there on</th>"
        yield _table(f"<tr>{which}{head}</tr>", rows, before="<h3>Changed at a restart</h3>")
    if len(runs) == 1 and runs[0].config:
        rows = [
            f"<tr><th scope=row>{escape(key)}</th><td>{_value(value)}</td></tr>"
            for key, value in runs[0].config.items()
        ]
        table = _table("<tr><th scope=col>Key</th><th scope=col>Value</th></tr>", rows)
        yield f"<details><summary>All {len(rows)} keys</summary>{table}</details>"


def _table(head: str, rows: Sequence[str], *, before: str = "") -> str:
    body = "\n".join(rows)
    return f"<div class=card>{before}{_scrolling(f'<table>{head}{body}</table>', label='Table')}</div>"


def _scrolling(table: str, *, label: str) -> str:
    """A table in a window of its own, which the keyboard can scroll too."""
    return f'<div class=scroll role=region aria-label="{label}" tabindex=0>{table}</div>'


def _chip(run: RunHistory, index: int) -> str:
    return f'<span class=chip style="--colour:var(--curve-{index % 8})">{escape(run.name)}</span>'


def _value(value: Any) -> str:
    return (
        "<span class=quiet>–</span>"
        if value is None
        else escape(value if isinstance(value, str) else json.dumps(value))
    )


def _axes(run: RunHistory) -> dict[str, list[float]]:
    """Points of the run between which the page interpolates: samples and tokens of a step."""
    table = run.train if len(run.train) else run.validation
    tokens = tokens_seen(run)
    kept = evenly(len(table), most=_AXIS_POINTS)
    axes = {"step": table.steps[kept], "sample": table.columns["samples"][kept]}
    if tokens is not None:
        axes["token"] = tokens[kept]
    return {name: [0.0, *np.asarray(values, dtype=np.float64).tolist()] for name, values in axes.items()}


def _look(palette: Palette) -> Mapping[str, Any]:
    return {
        "ink": palette.ink,
        "quiet": palette.quiet,
        "rule": palette.rule,
        "card": palette.card,
        "curves": palette.curves,
    }


def _colours() -> str:
    """Both palettes as CSS: the reader's system chooses, and a switch overrules it."""

    def block(palette: Palette, scheme: str) -> str:
        named = {"page": palette.page, "card": palette.card, "ink": palette.ink, "quiet": palette.quiet}
        named |= {"rule": palette.rule, "accent": palette.accent}
        named |= {f"curve-{index}": colour for index, colour in enumerate(palette.curves)}
        return f"color-scheme:{scheme};" + ";".join(f"--{name}:{colour}" for name, colour in named.items())

    light, dark = block(LIGHT, "light"), block(DARK, "dark")
    return (
        f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        f":root[data-theme=light]{{{light}}}\n:root[data-theme=dark]{{{dark}}}\n@media print{{:root:root{{{light}}}}}"
    )


def _inert(data: Mapping[str, Any]) -> str:
    """JSON that cannot end its script element."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return files("glm130b.report").joinpath(name).read_text(encoding="utf-8")
