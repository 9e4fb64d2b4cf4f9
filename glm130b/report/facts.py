"""What a person asks first of a run, in a row of words."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import numpy as np

from glm130b.report.incidents import restarts
from glm130b.report.reading import Column, RunHistory, Table

Fact = tuple[str, str]
"""What, and how much; a dash where the folder does not tell."""

_SILENT = timedelta(hours=1)


def facts(run: RunHistory, *, now: datetime | None = None) -> list[Fact]:
    """The first facts of a run; ``now`` tells a run at work from one that has fallen silent."""
    train, validation = run.train, run.validation
    newest = max((table for table in (train, validation) if len(table)), key=lambda table: table.steps[-1])
    tokens = tokens_seen(run)
    overflows = train.last("overflows")
    wall_clock = (run.written - run.began).total_seconds() if run.began else None
    return [
        ("Status", _status(run, newest, now or datetime.now(timezone.utc))),
        ("Last step", f"{int(newest.steps[-1]):,}"),
        ("Samples", " ".join(_samples(run, newest))),
        ("Tokens", "–" if tokens is None else short(tokens[-1])),
        ("Loss", _number(_recent_loss(train))),
        ("Validation loss", _number(validation.last("loss"))),
        ("Wall clock", "–" if wall_clock is None else _duration(wall_clock)),
        ("Time in steps", _in_steps(train, wall_clock)),
        ("Restarts", f"{restarts(run):,}" if run.events else "–"),
        ("Overflows", "–" if overflows is None else f"{overflows:,.0f}"),
    ]


def tokens_seen(run: RunHistory) -> Column | None:
    """Tokens up to each training record: float64 [records], as counted, or rows x sequence length in runs of before.
    None where neither is known."""
    columns = [run.train.columns[name] for name in run.train.matching(r"tokens/([^.]+)")]
    length = run.config.get("data.sequence_length")
    if not len(run.train):
        return None
    if columns:
        counted: Column = np.nan_to_num(np.stack(columns), posinf=0.0).sum(axis=0)
        return counted
    return run.train.columns["samples"] * length if isinstance(length, int) else None


def short(number: float) -> str:
    """Three digits and a word: ``401 billion``."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {word}"
    return f"{number:,.0f}"


def _status(run: RunHistory, newest: Table, now: datetime) -> str:
    """The word of its end; a run of before left none, even when it had seen every sample."""
    planned = _planned(run)
    if run.ended:
        return run.ended
    if planned and newest.columns["samples"][-1] >= planned:
        return "complete"
    if now - run.written < _SILENT:
        return "running"
    return f"silent since {run.written:%Y-%m-%d %H:%M} UTC"


def _samples(run: RunHistory, newest: Table) -> Iterator[str]:
    samples, planned = newest.columns["samples"][-1], _planned(run)
    yield f"{samples:,.0f}"
    if planned:
        yield f"({samples / planned:.0%})"


def _planned(run: RunHistory) -> int | None:
    """Samples that the run is to see."""
    planned = run.config.get("train_samples")
    return planned if isinstance(planned, int) and planned > 0 else None


def _recent_loss(train: Table) -> float | None:
    """Mean of the newest hundredth of the steps, at least ten: one step's says little."""
    losses = train.get("loss")
    losses = losses[np.isfinite(losses)]
    return float(losses[-max(10, len(losses) // 100) :].mean()) if len(losses) else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _in_steps(train: Table, wall_clock: float | None) -> str:
    """Of the steps that stand. What is missing to the wall clock, which is kept in whole seconds, went into saves,
    evaluations, restarts, and steps that were taken again."""
    each = train.get("seconds")
    each = each[np.isfinite(each)]
    if not len(each):
        return "–"
    seconds = float(each.sum())
    return f"{_duration(seconds)} ({min(1, seconds / wall_clock):.0%})" if wall_clock else _duration(seconds)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
