"""A chart: a figure and what stands around it."""

from dataclasses import dataclass

from glm130b.report.figures import Figure


@dataclass(frozen=True)
class Chart:
    """One card of the page, one picture of a paper."""

    key: str
    """Name of its picture file, and its place on the page."""
    section: str
    title: str
    unit: str
    note: str
    figure: Figure
    run: int | None = None
    """The only run it is of; None for a chart of all."""
    is_small: bool = False
    """Two beside each other on a wide screen."""
