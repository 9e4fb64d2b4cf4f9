"""Layers over steps: where in the depth of the model something begins."""

import math
from collections.abc import Iterator

import numpy as np

from glm130b.report.chart import Chart
from glm130b.report.curves import STABILITY
from glm130b.report.downsampling import binned_maximum
from glm130b.report.figures import PLACE, Figure, frame, packed, steps_of
from glm130b.report.reading import Column, RunHistory

_BINS = 500
_HEAT_MAPS = (
    ("gradient_norm/layer.", "layer-gradients", "Gradient norm of every layer", "L2 norm"),
    ("update_ratio/layer.", "layer-updates", "Update to weight of every layer", "ratio of L2 norms"),
    ("activation_scale/layer.", "layer-activations", "Scale of every layer's output", "root mean square"),
)


def layer_charts(run: RunHistory, index: int, *, suffix: str) -> Iterator[Chart]:
    """A heat map of each quantity that was recorded; ``suffix`` tells the keys of several runs' charts apart."""
    for prefix, name, title, unit in _HEAT_MAPS:
        found = run.train.matching(rf"{prefix}(\d+)".replace(".", r"\.", 1))
        layers = sorted((int(layer), column) for column, layer in found.items())
        if not layers:
            continue
        values = np.stack([run.train.columns[column] for _, column in layers])
        recorded = np.isfinite(values).any(axis=0)
        if not recorded.any():
            continue
        maxima, starts = binned_maximum(values[:, recorded], bins=_BINS)
        steps = run.train.steps[recorded]
        ends = np.append(starts[1:], len(steps)) - 1
        centres = (steps[starts] + steps[ends]) / 2
        figure = _heat_map([layer for layer, _ in layers], centres, maxima, unit=unit, run=index)
        every = math.ceil(len(steps) / len(starts))
        note = f"The largest value of every {every:,} records." if every > 1 else ""
        yield Chart(f"{name}{suffix}", STABILITY, title, f"{unit}, logarithmic", note, figure, run=index)


def _heat_map(layers: list[int], steps: Column, values_LT: Column, *, unit: str, run: int) -> Figure:
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = np.where(values_LT > 0, np.log10(values_LT), np.nan)
    low, high = _span(powers)
    ticks = _powers(low, high)
    trace = {
        "type": "heatmap",
        "x": steps_of(steps),
        "y": layers,
        "z": packed(powers) | {"shape": f"{powers.shape[0]}, {powers.shape[1]}"},
        "text": [[f"{value:.3g}" for value in row] for row in values_LT],
        "zmin": low,
        "zmax": high,
        "colorscale": "Cividis",
        "colorbar": {
            "thickness": 10,
            "outlinewidth": 0,
            "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
            "title": {"text": unit, "side": "right"},
        },
        "hovertemplate": f"layer %{{y}}<br>{PLACE}: <b>%{{text}}</b><extra></extra>",
        "meta": {"run": run, "colour": None, "role": "map"},
    }
    layout = frame(unit="layer", height=max(260, min(520, 140 + 6 * len(layers))))
    layout["yaxis"] |= {"showgrid": False, "dtick": max(1, len(layers) // 10)}
    return {"data": [trace], "layout": layout}


def _span(powers_LT: Column) -> tuple[float, float]:
    """From the first percentile to the last: the first steps and a spike have the colours of the ends, and the rest
    has all others."""
    finite = powers_LT[np.isfinite(powers_LT)]
    low, high = map(float, np.percentile(finite, (1, 99))) if len(finite) else (0.0, 1.0)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _powers(low: float, high: float) -> dict[float, str]:
    """Ticks of a logarithmic colour bar, by the power of ten where they stand: decades, or 1, 2 and 5 of each where
    there are few."""
    digits = (1, 2, 5) if high - low < 3 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = {decade + math.log10(digit): f"{digit * 10.0**decade:g}" for decade in decades for digit in digits}
    return {power: text for power, text in ticks.items() if low <= power <= high}
