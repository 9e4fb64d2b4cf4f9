"""All charts of a report, made of the runs' columns."""

from collections.abc import Sequence

from glm130b.report.chart import Chart
from glm130b.report.curve_charts import curve_chart
from glm130b.report.curves import CURVE_CHARTS
from glm130b.report.layer_charts import layer_charts
from glm130b.report.mixture_charts import mixture_charts
from glm130b.report.reading import RunHistory
from glm130b.report.timeline import timeline


def charts(runs: Sequence[RunHistory]) -> list[Chart]:
    """Every chart for which some run has values, in the order of the page within its section."""
    found = [chart for spec in CURVE_CHARTS if (chart := curve_chart(spec, runs))]
    for index, run in enumerate(runs):
        suffix = "" if len(runs) == 1 else f"-{index + 1}"
        found += [*layer_charts(run, index, suffix=suffix), *mixture_charts(run, index, suffix=suffix)]
    return [*found, *timeline(runs)]
