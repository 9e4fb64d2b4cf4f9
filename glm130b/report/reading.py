"""What a run's folder tells: its records as columns, its events, its config.

Reading is forgiving, because a report is asked for most when something went wrong: a running run whose last line is cut
short, files that are not there, records of older versions.
"""

import json
import math
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm130b.config import yaml_dialect
from glm130b.config.errors import UserError
from glm130b.config.flat import flat

Column = NDArray[Any]
"""One value a record: float64, of a layer float32. NaN where a record has no such value; infinite where it had one that
was not finite."""

_NOT_SHOWN = "parameter_norm/layer."


@dataclass(frozen=True)
class Table:
    """The records of one kind, by ascending step."""

    columns: Mapping[str, Column]

    @property
    def steps(self) -> Column:
        return self.columns["step"]

    def __len__(self) -> int:
        return len(self.steps)

    def get(self, name: str) -> Column:
        """A column; all NaN where no record has the value."""
        return self.columns.get(name, np.full(len(self), np.nan))

    def last(self, name: str) -> float | None:
        """The newest finite value."""
        values = self.get(name)
        finite = values[np.isfinite(values)]
        return float(finite[-1]) if len(finite) else None

    def matching(self, pattern: str) -> dict[str, str]:
        """Names of columns that the pattern matches whole, each with its first group; in the order of their writing."""
        found = ((name, re.fullmatch(pattern, name)) for name in self.columns)
        return {name: match[1] for name, match in found if match}


@dataclass(frozen=True)
class Happening:
    """A line of ``events.jsonl``."""

    time: str
    step: int
    name: str
    message: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class RunHistory:
    """One run, as far as its folder tells."""

    name: str
    folder: Path
    train: Table
    validation: Table
    events: tuple[Happening, ...]
    config: Mapping[str, Any]
    """The resolved config, ``section.key: value``; empty when it cannot be read."""
    ended: str | None
    """The word of the file ``ended``; None while the run trains, or after it was killed."""
    began: datetime | None
    """When its first step did; None where the first record bears no time."""
    written: datetime
    """When its newest record was made."""
    unreadable: int
    """Lines of its files that are no records and no events."""


def read_runs(folders: list[Path]) -> tuple[RunHistory, ...]:
    """All runs, each by a name of its own. Raises UserError that names every folder that is no run."""
    resolved = [folder.resolve() for folder in folders]
    problems = [
        f"{folder}: is named twice; name each run once"
        for folder, place in zip(folders, resolved, strict=True)
        if resolved.count(place) > 1
    ]
    runs = []
    for folder, name in zip(folders, _names(resolved), strict=True):
        try:
            runs.append(read_run(folder, name=name))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    return tuple(runs)


def read_run(folder: Path, *, name: str) -> RunHistory:
    """Raises UserError when the folder holds no record."""
    file = folder / "metrics.jsonl"
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder; name the folder of a run, such as runs/tiny")
    if not file.is_file():
        raise UserError(f"{folder}: holds no metrics.jsonl, so it is no run; name the folder of a run, as runs/tiny")
    tables = {"train": _Columns(), "validation": _Columns()}
    began = newest = None
    is_first = True
    unreadable = 0
    try:
        for record in _objects(file):
            kind = record.pop("kind", None) if record else None
            if isinstance(kind, str) and kind in tables and _is_count(record.get("step")):
                newest = _moment(record.pop("time", None))
                if is_first:
                    began, is_first = _begun(newest, record), False
                tables[kind].add(record)
            else:
                unreadable += 1
        written = newest or datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); make it readable") from error
    train, validation = tables["train"].table(), tables["validation"].table()
    if not len(train) and not len(validation):
        raise UserError(f"{file}: holds no record yet; wait for the first step of the run")
    events, unreadable_events = _events(folder / "events.jsonl")
    return RunHistory(
        name=name,
        folder=folder,
        train=train,
        validation=validation,
        events=events,
        config=_config(folder / "config.yaml"),
        ended=(_text(folder / "ended") or "").strip() or None,
        began=began,
        written=written,
        unreadable=unreadable + unreadable_events,
    )


class _Columns:
    """Columns that grow record by record: 8 bytes a value, 4 for the values of layers."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {}
        self._strangers: set[str] = set()
        self._length = 0

    def add(self, record: Mapping[str, Any]) -> None:
        columns, length = self._columns, self._length
        for name, value in record.items():
            column = columns.get(name)
            if column is None:
                if name in self._strangers:
                    continue
                if isinstance(value, str) or name.startswith(_NOT_SHOWN):
                    self._strangers.add(name)
                    continue
                column = columns[name] = array("f" if "/layer." in name else "d")
            if len(column) < length:
                column.extend([math.nan] * (length - len(column)))
            try:
                column.append(math.inf if value is None else value)
            except (TypeError, OverflowError):  # no number: as if it were not there
                column.append(math.nan)
        self._length += 1

    def table(self) -> Table:
        """Of steps that were recorded more than once, the last record counts."""
        columns = {}
        for name in list(self._columns):
            column = self._columns.pop(name)
            column.extend([math.nan] * (self._length - len(column)))
            columns[name] = np.frombuffer(column, dtype=column.typecode) if column else np.empty(0)
        steps = columns.setdefault("step", np.empty(0))
        if np.any(np.diff(steps) <= 0):
            _, from_the_end = np.unique(steps[::-1], return_index=True)
            kept = len(steps) - 1 - from_the_end
            columns = {name: column[kept] for name, column in columns.items()}
        samples = columns.setdefault("samples", columns["step"])
        columns["samples"] = np.where(np.isfinite(samples), samples, columns["step"])
        return Table(columns)


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, line by line; an empty one for a line that holds none. A last line without its end is
    still being written, and is passed over when it cannot be read."""
    with file.open("rb") as lines:
        for line in lines:
            try:
                found = json.loads(line, parse_constant=_not_finite)
            except (ValueError, RecursionError):
                if not line.endswith(b"\n"):
                    return
                found = None
            if line.strip():
                yield found if isinstance(found, dict) else {}


def _not_finite(_: str) -> None:
    """NaN and Infinity are no JSON; Python would read them."""


def _events(file: Path) -> tuple[tuple[Happening, ...], int]:
    """The events, and how many lines are none."""
    events, unreadable = [], 0
    try:
        for line in _objects(file):
            details = line.get("details")
            if not _is_count(line.get("step")) or not isinstance(line.get("name"), str):
                unreadable += 1
                continue
            time, message = (str(line.get(key) or "") for key in ("time", "message"))
            details = details if isinstance(details, dict) else {}
            events.append(Happening(time, int(line["step"]), line["name"], message, details))
    except OSError:  # a run of before had none
        pass
    return tuple(events), unreadable


def _config(file: Path) -> dict[str, Any]:
    try:
        tree = yaml_dialect.parse(_text(file) or "", origin=str(file))
    except UserError:
        return {}
    return dict(flat(tree)) if isinstance(tree, dict) else {}


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _moment(time: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(time).astimezone(timezone.utc)
    except (ValueError, TypeError, OverflowError):
        return None


def _begun(ended: datetime | None, record: Mapping[str, Any]) -> datetime | None:
    """When the step of a record began."""
    seconds = record.get("seconds", 0.0)
    return ended - timedelta(seconds=float(seconds) if _is_count(seconds) else 0.0) if ended else None


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value < 2**53


def _names(folders: list[Path]) -> list[str]:
    """The last parts of each path, as many as tell the runs apart."""
    depth = 1
    while depth < max(len(folder.parts) for folder in folders):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
        depth += 1
    return [str(folder) for folder in folders]
