"""Plotly figures as plain data: how a curve, a mark and a chart's frame look.

Every trace says in ``meta`` of which run it is (``run``), which colour of the palette it has (``colour``) and what it
is for (``role``), so that the page can switch runs, themes and smoothing without knowing the chart. The x of all traces
are steps; the page turns them into samples or tokens.
"""

import base64
import textwrap
from collections.abc import Sequence
from html import escape
from typing import Any, Literal, NamedTuple

import numpy as np

from glm130b.report.incidents import Kind
from glm130b.report.palette import LIGHT
from glm130b.report.reading import Column

Figure = dict[str, Any]
Trace = dict[str, Any]

Role = Literal["curve", "noise", "mean", "share"]
"""A noisy curve stands under its mean; a share stands on the others."""

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = {
    Kind.RESTART: "line-ns-open",
    Kind.ACTION: "diamond",
    Kind.SPIKE: "circle-open",
    Kind.CHECKPOINT: "square-open",
    Kind.OTHER: "x-thin-open",
}
FAINT = 0.3
"""Opacity of a noisy curve under its running mean."""
PLACE = "%{xaxis.title.text} %{x:,.0f}"
"""Under the pointer, on whatever axis the page shows."""
_FONT = "Inter, 'Segoe UI', system-ui, -apple-system, 'Helvetica Neue', Arial, sans-serif"


def packed(values: Column) -> dict[str, str]:
    """An array as Plotly takes it: little-endian bytes in base64. Steps keep all digits, values seven of them."""
    kind = "i4" if values.dtype.kind in "iu" else "f4"
    return {"dtype": kind, "bdata": base64.b64encode(values.astype(f"<{kind}").tobytes()).decode("ascii")}


def steps_of(values: Column) -> dict[str, str]:
    """Steps for an x axis; more of them than 32 bits count stay numbers to seven digits."""
    return packed(values.astype(np.int64) if not len(values) or values[-1] < 2**31 else values)


class Look(NamedTuple):
    """Whose a curve is, and how it is told apart."""

    run: int
    colour: int
    dash: str
    label: str
    """In the legend; empty in a chart of one curve a run."""
    run_name: str
    """Under the pointer; empty where the label says enough."""
    form: str
    """Of its values, in d3's words."""


def curve(steps: Column, values: Column, look: Look, *, role: Role) -> Trace:
    """A line over the steps."""
    label, colour = escape(look.label), look.colour
    name = " · ".join(filter(None, (escape(look.run_name), label, "smoothed" if role == "mean" else "")))
    return {
        "type": "scatter",
        "mode": "lines" if len(steps) > 1 else "markers",
        "x": steps_of(steps),
        "y": packed(values),
        "name": label,
        "legendgroup": label,
        "showlegend": False,
        "opacity": FAINT if role == "noise" else 1,
        "line": {"width": 1 if role == "noise" else 1.8, "dash": look.dash, "color": shade(colour)},
        "hovertemplate": f"{name}<br>{PLACE}: <b>%{{y:{look.form}}}</b><extra></extra>",
        "meta": {"run": look.run, "colour": colour, "role": role},
    }


def marks(
    steps: Sequence[float], values: Sequence[float], texts: Sequence[str], *, run: int, colour: int, symbol: str
) -> Trace:
    """Points that say something under the pointer; the texts are foreign, and are shown as they are."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": steps_of(np.asarray(steps, dtype=np.float64)),
        "y": packed(np.asarray(values, dtype=np.float64)),
        "text": [foreign(text) for text in texts],
        "showlegend": False,
        "marker": {"symbol": symbol, "size": 9, "color": shade(colour), "line": {"width": 1.8, "color": shade(colour)}},
        "hovertemplate": f"{PLACE}<br>%{{text}}<extra></extra>",
        "meta": {"run": run, "colour": colour, "role": "mark"},
    }


def key(label: str, *, colour: int | None, dash: str) -> Trace:
    """An entry of the legend that stands for the curves of this label; without a colour for those of all runs."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [None],
        "y": [None],
        "name": escape(label),
        "legendgroup": escape(label),
        "line": {"width": 2.2, "dash": dash, "color": LIGHT.quiet if colour is None else shade(colour)},
        "meta": {"run": None, "colour": colour, "role": "key"},
    }


def frame(
    *, unit: str, is_log: bool = False, is_from_zero: bool = False, form: str = "", height: int = 300, **more: Any
) -> dict[str, Any]:
    """A chart's layout for the light page."""
    axis = {"gridcolor": LIGHT.rule, "linecolor": LIGHT.rule, "zeroline": False, "automargin": True}
    ticks = {"tickformat": ".0%"} if form.endswith("%") else {"exponentformat": "power"}
    scale: dict[str, Any] = {"rangemode": "tozero"} if is_from_zero else {}
    if is_log:
        scale = {"type": "log", "nticks": 3, "tickformat": "~g"}  # decades, or 1, 2, 5; all of one size by the format
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 12, "color": LIGHT.quiet},
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "namelength": -1},
        "dragmode": "zoom",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        "xaxis": axis
        | {"title": {"text": "step", "standoff": 8}, "tickformat": "~s", "showgrid": False, "ticks": "outside"},
        "yaxis": axis | ticks | scale | {"title": {"text": unit, "standoff": 8}},
        **more,
    }


def shade(colour: int) -> str:
    """Of the light palette."""
    return LIGHT.curves[colour % len(LIGHT.curves)]


def foreign(text: str) -> str:
    """Text from a file, without meaning for Plotly or HTML, in lines that fit beside a pointer."""
    return "<br>".join(escape(line) for line in textwrap.wrap(text, 64)[:12])
