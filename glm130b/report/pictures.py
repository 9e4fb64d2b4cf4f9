"""The door to kaleido, which draws charts with the browser of the machine: PNG files for papers."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

from glm130b.config.errors import UserError
from glm130b.report.chart import Chart
from glm130b.report.figures import Figure, key
from glm130b.report.palette import LIGHT

WIDTH, HEIGHT, SCALE = 1000, 560, 3
"""Points, and pixels to each: 3000 pixels over a column of 10 cm are more than 600 a inch."""


def write_pictures(charts: Sequence[Chart], folder: Path, *, runs: Sequence[str]) -> list[Path]:
    """One file a chart, ``<key>.png``; ``runs`` are their names.

    Raises UserError without kaleido, without a browser, or where the folder cannot be written.
    """
    try:
        import kaleido
        from choreographer.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError
    except ImportError as error:
        raise UserError("--png: needs the package kaleido; pip install 'glm130b[report]'") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".drawing-") as beside:
            drawn = [(chart, Path(beside) / f"{chart.key}.png") for chart in charts]
            kaleido.write_fig_from_object_sync(
                [
                    {
                        "fig": for_paper(chart, runs),
                        "path": file,
                        "opts": {"width": WIDTH, "height": HEIGHT, "scale": SCALE},
                    }
                    for chart, file in drawn
                ],
                kopts={"mathjax": False},  # else it would be fetched from the network
            )
            return [file.replace(folder / file.name) for _, file in drawn]
    except ChromeNotFoundError as error:
        raise UserError(
            "--png: finds no Chrome or Chromium on this machine, which draws the pictures; install one, or save single "
            "charts with the camera button of the page"
        ) from error
    except (BrowserClosedError, BrowserFailedError) as error:
        raise UserError(f"--png: the browser of this machine does not start ({error}); try another one") from error
    except OSError as error:
        raise UserError(f"--png {folder}: cannot be written ({error.strerror}); name another folder") from error


def for_paper(chart: Chart, runs: Sequence[str]) -> Figure:
    """White, with type and lines that stay legible in a column of a paper, and a legend of the runs where there are
    several; the page has switches for that."""
    figure = deepcopy(chart.figure)
    if chart.run is None and len(runs) > 1:
        figure["data"] += [key(name, colour=index, dash="solid") for index, name in enumerate(runs)]
    layout = figure["layout"]
    layout |= {"paper_bgcolor": "#ffffff", "plot_bgcolor": "#ffffff", "margin": {"l": 16, "r": 24, "t": 24, "b": 16}}
    layout.pop("height", None)
    layout["font"] = layout["font"] | {"size": 20, "color": LIGHT.ink}
    for trace in figure["data"]:
        if width := trace.get("line", {}).get("width"):
            trace["line"]["width"] = width * 1.4
    return figure
