"""The colours of a report, for paper and for the dark: told apart by readers who are colour-blind, and each at least
3:1 against its page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Palette:
    """One look of the page and its charts."""

    page: str
    card: str
    ink: str
    quiet: str
    """Of captions and of what belongs to no run."""
    rule: str
    """Of lines between things, and of a chart's grid."""
    accent: str
    curves: tuple[str, ...]
    """Of runs, or of the curves of one run, in this order."""


LIGHT = Palette(
    page="#f6f6f4",
    card="#ffffff",
    ink="#1c1e21",
    quiet="#5c636b",
    rule="#e3e4e1",
    accent="#1f5f99",
    curves=("#1f6fb2", "#c2500c", "#0b7d5c", "#a8487f", "#8a6a00", "#3a8fb7", "#6b5fb5", "#737a82"),
)
DARK = Palette(
    page="#15171a",
    card="#1d2024",
    ink="#e8e9ea",
    quiet="#a0a7af",
    rule="#33383e",
    accent="#7fb8ea",
    curves=("#5ba7e8", "#f08c4a", "#3fbf98", "#e08bbd", "#dcb93f", "#8ed0f0", "#a99ff0", "#a4abb3"),
)
