"""From files to a folder of documents that are worth training on, and a report of the others."""

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glm130b.config.errors import UserError
from glm130b.data.cleaning.request import Cleaning, Task
from glm130b.data.cleaning.rows import DAMAGED, Lines, read_rows

_MOST_PROBLEMS = 20


def clean(cleaning: Cleaning, output: Path, *, workers: int, reject_share: float = 0.0) -> dict[str, Any]:
    """Write the documents that stay into ``output``, and beside it a report and, if asked for, the others.

    All is written into a hidden folder beside it first and moved at the end. A run that was killed goes on where it was
    when it is run again; with other options or other files it starts anew. What is written does not depend on
    ``workers``. Returns the report. Raises UserError, BrokenProcessPool and OSError.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output}: is there already; remove it or name another folder")
    tasks = cleaning.tasks()
    with _work_folder(output.with_name(f".{output.name}.cleaning"), cleaning.key(tasks)) as work:
        counts = _run_stages(cleaning, tasks, work, workers=workers, reject_share=reject_share)
        report = _report(cleaning, counts)
        (work / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        _publish(work, output)
    return report


def beside(output: Path, name: str) -> Path:
    """Where the report and what was dropped lie."""
    return output.with_name(f"{output.name}.{name}")


def _run_stages(
    cleaning: Cleaning, tasks: list[Task], work: Path, *, workers: int, reject_share: float
) -> Counter[str]:
    """Everything up to the folders ``kept`` and ``dropped``; how many documents met which fate."""
    from glm130b.data.cleaning import stages  # imports datatrove, which not everybody has

    rows, minhash = work / "rows", work / "minhash"
    steps = [stages.Filtering(cleaning, tasks, rows)]
    if cleaning.near_duplicates:
        steps.append(stages.near_duplicate_signatures(cleaning, minhash))
    filtering = stages.Stage("filtering", steps, tasks=len(tasks), work=work, workers=workers)
    filtering.run()
    counts, lines = filtering.counts(), Lines(rows, tasks)
    if not counts["read"]:
        raise UserError(f"{', '.join(map(str, cleaning.files))}: no document in it; name files with documents")

    rejected = {label for label in counts if label.startswith("reading/")}
    num_rejected = sum(counts[label] for label in rejected)
    if num_rejected > reject_share * counts["read"] or f"reading/{DAMAGED}" in rejected:
        problems: list[str] = []
        for rank in range(len(tasks)):
            for row in read_rows(rows, rank):
                if row.get("dropped_by") == "reading" and len(problems) < _MOST_PROBLEMS:
                    file, line = lines.place(rank, row["piece"], row["line"])
                    problems.append(f"{file}, line {line}: {row['message']}")
        mend = "mend them, or allow more with --reject-share; a damaged file is never allowed"
        raise UserError([*problems, f"{num_rejected} of {counts['read']} records cannot be read; {mend}"])

    later = None
    if cleaning.near_duplicates:
        later = stages.find_near_duplicates(minhash, num_tasks=len(tasks), work=work, workers=workers)
    dropped = work / "dropped" if cleaning.keep_dropped else None
    step = stages.Writing(rows=rows, lines=lines, later=later, kept=work / "kept", dropped=dropped)
    writing = stages.Stage("writing", [step], tasks=len(tasks), work=work, workers=workers)
    writing.run()
    return counts + writing.counts()


@contextmanager
def _work_folder(work: Path, key: str) -> Iterator[Path]:
    """A folder with what an earlier run with the same key has done, else an empty one; for one run at a time."""
    work.mkdir(parents=True, exist_ok=True)
    lock = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{work}: another run is at work in it; wait for it, or name another --output") from None
        begun = work / "key.json"
        if not begun.exists() or begun.read_text("utf-8") != key:
            for found in work.iterdir():
                shutil.rmtree(found) if found.is_dir() else found.unlink()
            begun.write_text(key, encoding="utf-8")
        yield work
    finally:
        os.close(lock)


def _publish(work: Path, output: Path) -> None:
    """The output comes last: who finds it finds the rest. A kill between two moves is mended by the next run."""
    (work / "report.json").replace(beside(output, "report.json"))
    dropped = beside(output, "dropped")
    if (work / "dropped").exists():
        shutil.rmtree(dropped, ignore_errors=True)
        (work / "dropped").replace(dropped)
    (work / "kept").replace(output)
    shutil.rmtree(work)


def _report(cleaning: Cleaning, counts: Counter[str]) -> dict[str, Any]:
    """For a reader of its JSON."""
    by = {
        name: {
            label.partition("/")[2]: count for label, count in sorted(counts.items()) if label.startswith(f"{name}/")
        }
        for name in ("reading", *cleaning.filters)
    }
    return {
        **cleaning.options(),
        "files": list(map(str, cleaning.files)),
        "read": counts["read"],
        "rejected": by.pop("reading"),
        "dropped": by,
        "near_duplicates_dropped": counts["near-duplicates"],
        "kept": counts["kept"],
    }
