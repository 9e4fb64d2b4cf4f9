"""Where the configs of runs differ, and how one run's config changed from start to start."""

from collections.abc import Sequence
from typing import Any

from glm130b.report.reading import RunHistory

_OF_EVERY_RUN = {"name", "folder"}


def between(runs: Sequence[RunHistory]) -> list[tuple[str, tuple[Any, ...]]]:
    """Keys whose values are not the same in all runs, each with one value a run; runs without a config do not count,
    and None stands for a key that a run has not."""
    known = [run.config for run in runs if run.config]
    keys = dict.fromkeys(key for config in known for key in config)
    return [
        (key, tuple(run.config.get(key) for run in runs))
        for key in keys
        if key not in _OF_EVERY_RUN and any(config.get(key) != known[0].get(key) for config in known)
    ]


def over_time(run: RunHistory) -> list[tuple[int, str, Any, Any]]:
    """What the starts of a run changed: (step, key, before, from there on)."""
    changes = []
    for event in run.events:
        of_start = event.details.get("changes") if event.name == "resume" else None
        for key, values in (of_start or {}).items() if isinstance(of_start, dict) else ():
            if isinstance(values, list) and len(values) == 2:
                changes.append((event.step, str(key), *values))
    return changes
