"""Documents that were left out: written down for the user, and too many of them end the run."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glm130b.config.errors import UserError
from glm130b.data.preparation.merging import Place

_SHOWN = 5


def write_rejects(places: Sequence[Place], path: Path, *, allowed_share: float) -> None:
    """Write {file, line, kind, reason} of each, one JSON object a line; without any there is no file.

    Raises UserError if they are more than the allowed share of all records.
    """
    total = sum(place.reader.summary.records for place in places)
    kinds: Counter[str] = Counter()
    for place in places:
        kinds.update(place.reader.summary.rejected)
    if not kinds:
        path.unlink(missing_ok=True)
        return
    shown: list[str] = []
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for row in _rejects(places):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            if len(shown) < _SHOWN:
                shown.append(f"{row['file']}, line {row['line']}: {row['reason']}")
    partial.replace(path)
    if kinds.total() > allowed_share * total:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        allowed = f"--reject-share allows {allowed_share:g} of them"
        again = "mend them or allow more, and run the same command again: what is already tokenised is kept"
        problem = f"{kinds.total()} of {total} documents are bad ({counts}), and {allowed}; {path} names them; {again}"
        raise UserError([problem, *shown])


def _rejects(places: Sequence[Place]) -> Iterator[dict[str, Any]]:
    for place in places:
        for row in place.reader.rejects() if place.reader.summary.rejected else ():
            line = int(place.first_lines[row["piece"]]) + row["line"]
            file = str(place.shard.pieces[row["piece"]].file)
            yield {"file": file, "line": line, "kind": row["kind"], "reason": row["reason"]}
