"""``glm130b report``: what one run or several have done, on one page to open in a browser."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path

from glm130b.config.errors import UserError
from glm130b.report.charts import charts
from glm130b.report.page import page
from glm130b.report.pictures import write_pictures
from glm130b.report.plotly_script import plotly_script
from glm130b.report.reading import read_runs


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``glm130b report``."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run, as runs/tiny")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="the page to write (report.html)")
    parser.add_argument(
        "--png", type=Path, metavar="FOLDER", help="also write each chart as a picture; needs Chrome or Chromium"
    )


def run(arguments: Namespace) -> int:
    """Read the runs, write the page, then the pictures."""
    script = plotly_script()
    runs = read_runs(arguments.runs)
    drawn = charts(runs)
    size = _write(arguments.output, page(runs, drawn, plotly_script=script))
    counts = ", ".join(f"{len(them)} {what}{'s' * (len(them) > 1)}" for them, what in ((runs, "run"), (drawn, "chart")))
    print(f"{arguments.output}: {counts}, {size / 1e6:.1f} MB")
    if arguments.png:
        pictures = write_pictures(drawn, arguments.png, runs=[run.name for run in runs])
        print(f"{arguments.png}: {len(pictures)} pictures")
    return 0


def _write(file: Path, pieces: Iterable[str]) -> int:
    """Beside, then renamed, so that a page that is open elsewhere is never half of one; its size in bytes."""
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w", encoding="utf-8", errors="replace") as stream:
            stream.writelines(pieces)
        size = beside.stat().st_size
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(f"--output {file}: cannot be written ({error.strerror}); name another file") from error
    return size
