"""Numbers and spans as a page shows them."""

import textwrap
from collections.abc import Iterator

COLUMNS = 80


def shown(count: int, *, most: int) -> list[int | None]:
    """All indices, or ``most`` of them and None in place of the middle."""
    if count <= most:
        return list(range(count))
    return [*range(most // 2), None, *range(count - most // 2, count)]


def span(first: int, size: int) -> str:
    return f"{first}" if size == 1 else f"{first}-{first + size - 1}"


def millions(number: int) -> str:
    return f"{number / 1e6:,.2f} M"


def short(number: float) -> str:
    """Four digits and the prefix of a unit: ``1.544 T``."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if number >= 10**power:
            return f"{number / 10**power:.4g} {prefix}"
    return f"{number:,.0f} "


def gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:,.2f}"


def duration(seconds: float) -> str:
    """Three digits or more and the unit: ``83.5 s``, ``0.298 ms``."""
    number, unit = (seconds, "s") if seconds >= 0.01 else (1000 * seconds, "ms")
    return f"{number:,.1f} {unit}" if number >= 10 else f"{number:.3g} {unit}"


def long_duration(seconds: float) -> str:
    """In hours from two on, in minutes from two on: ``28.3 h``, ``69.6 min``, ``83.5 s``."""
    for unit_seconds, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit_seconds:
            return f"{seconds / unit_seconds:,.1f} {unit}"
    return duration(seconds)


def paragraph(text: str, *, indent: str = "    ") -> Iterator[str]:
    """Lines of the page, ``text`` behind two spaces, what follows behind ``indent``."""
    yield from textwrap.wrap(
        text,
        COLUMNS,
        initial_indent="  ",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
