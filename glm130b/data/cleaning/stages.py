"""The one door to datatrove: its filters, its MinHash, and its executor that skips what is done.

A step of ours reads through ``glm130b.data.reading``, because datatrove's readers skip a bad line with a warning. Every
document is written down with its fate; near-duplicates are looked for among those that all filters let pass.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr
from io import StringIO
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.hashing import HashConfig
from tqdm import tqdm

from glm130b.data.cleaning.request import Cleaning, Task
from glm130b.data.cleaning.rows import DAMAGED, Lines, open_shard, read_rows
from glm130b.data.cleaning.thresholds import DATATROVE_LANGUAGE, THRESHOLDS, FilterName
from glm130b.data.reading.documents import texts_of, utf8
from glm130b.data.reading.records import PieceReader
from glm130b.data.reading.rejection import Damaged, Rejection

FILTERS: dict[FilterName, type] = {
    "gopher-repetition": GopherRepetitionFilter,
    "gopher-quality": GopherQualityFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
}
# What a filter runs into on a text that its author did not think of, such as one without words.
_SURPRISES = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)

logging.getLogger("jieba").disabled = True  # it tells where its dictionary lies


class Filtering(PipelineStep):
    """Reads a task's documents, writes down each with its fate, and hands on those that stay."""

    type, name = "glm130b", "filtering"

    def __init__(self, cleaning: Cleaning, tasks: Sequence[Task], folder: Path) -> None:
        super().__init__()
        self._cleaning, self._tasks, self._folder = cleaning, tasks, folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """As datatrove calls it for task ``rank``; all that an earlier, unfinished call wrote is written again."""
        language = self._cleaning.language
        filters = [
            (name, FILTERS[name](language=DATATROVE_LANGUAGE[language], **THRESHOLDS[language][name]))
            for name in self._cleaning.filters
        ]
        lines = []
        with open_shard(self._folder, rank) as rows:
            for number, piece in enumerate(self._tasks[rank]):
                reader = PieceReader(piece, self._cleaning.reading, columns=(self._cleaning.text_field,))
                for line, found in self._texts(reader):
                    row = {"piece": number, "line": line, **_judged(found, filters)}
                    rows.write(f"{json.dumps(row, ensure_ascii=False)}\n")
                    self.stat_update("read")
                    if "dropped_by" in row:
                        self.stat_update(f"{row['dropped_by']}/{row['reason']}")
                    else:
                        yield Document(text=row["text"], id=f"{piece.file}:{line}")
                lines.append(reader.num_lines)
        (self._folder / f"{rank:05d}.lines").write_text(json.dumps(lines))

    def _texts(self, reader: PieceReader) -> Iterator[tuple[int, str | Rejection]]:
        """(line of the piece, its text or why it has none); what cannot be read on ends in one Rejection."""
        try:
            for record in reader:
                try:
                    if isinstance(record.value, Rejection):
                        raise record.value
                    (text,) = texts_of(record.value, ((self._cleaning.text_field,),))
                    utf8(text, longest_bytes=self._cleaning.reading.longest_bytes)
                    yield record.line, text
                except Rejection as rejection:
                    yield record.line, rejection
        except (Damaged, OSError) as error:
            reason = str(error) if isinstance(error, Damaged) else f"cannot be read ({error.strerror}); mend the file"
            yield reader.num_lines + 1, Rejection(DAMAGED, reason)


class Writing(PipelineStep):
    """Writes a task's documents to where they go at the end, each with its file and line."""

    type, name = "glm130b", "writing"

    def __init__(self, *, rows: Path, lines: Lines, later: Path | None, kept: Path, dropped: Path | None) -> None:
        """``later`` holds the numbers of the near-duplicates of earlier documents; None: nobody looked for them."""
        super().__init__()
        self._rows, self._lines, self._later, self._kept, self._dropped = rows, lines, later, kept, dropped

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """As datatrove calls it for task ``rank``."""
        later = set(np.fromfile(self._later / f"{rank:05d}", "<u4").tolist()) if self._later else set()
        number = 0
        with open_shard(self._kept, rank) as kept, open_shard(self._dropped, rank) as dropped:
            for row in read_rows(self._rows, rank):
                origin = {"origin": "{}:{}".format(*self._lines.place(rank, row.pop("piece"), row.pop("line")))}
                if "dropped_by" not in row:
                    if number in later:
                        row |= {"dropped_by": "near-duplicates", "reason": "near-duplicate of an earlier document"}
                    number += 1
                    self.stat_update("near-duplicates" if "dropped_by" in row else "kept")
                file = dropped if "dropped_by" in row else kept
                file.write(f"{json.dumps(row | origin, ensure_ascii=False)}\n")


class Stage(PipelineExecutor):
    """Runs the steps for every task that has not been finished before, some at a time.

    datatrove's own local executor waits for ever when a worker is killed; this one raises BrokenProcessPool.
    """

    def __init__(self, name: str, steps: Sequence[PipelineStep], *, tasks: int, work: Path, workers: int) -> None:
        super().__init__(list(steps), logging_dir=str(work / "log" / name))
        self._name, self._tasks, self._workers = name, tasks, workers

    @property
    def world_size(self) -> int:
        return self._tasks

    def get_distributed_env(self, node_rank: int = -1) -> dict[str, str]:
        """One machine; datatrove wants all of these."""
        names = ("node_ips", "cpus_per_task", "mem_per_cpu", "gpus_on_node")
        return {"datatrove_executor": "LOCAL", **{f"datatrove_{name}": "-1" for name in names}}

    def run(self) -> None:
        """Raises what a step raises."""
        ranks = self.get_incomplete_ranks()
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__, "spacy"])  # once, not once a worker
        with (
            tqdm(desc=self._name, total=self._tasks, initial=self._tasks - len(ranks), unit="task") as progress,
            ProcessPoolExecutor(self._workers, mp_context=context, initializer=_end_with_parent) as pool,
        ):
            try:
                for done in as_completed([pool.submit(self._finish, rank) for rank in ranks]):
                    done.result()
                    progress.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _finish(self, rank: int) -> None:
        with redirect_stderr(StringIO()):  # datatrove tells the terminal what it also writes into the log folder
            self._run_for_rank(rank)

    def counts(self) -> Counter[str]:
        """What our steps counted, over all tasks and also over those that an earlier run finished."""
        counted: Counter[str] = Counter()
        for rank in range(self._tasks):
            for step in json.loads(self.logging_dir.read_text(f"stats/{rank:05d}.json")):
                if step["name"].startswith("glm130b"):
                    counted.update({label: int(count) for label, count in step["stats"].items()})
        return counted


def near_duplicate_signatures(cleaning: Cleaning, folder: Path) -> PipelineStep:
    """The step that writes down 14 x 8 hashes of each document it is given, over its runs of five words."""
    language = DATATROVE_LANGUAGE[cleaning.language]
    return MinhashDedupSignature(str(folder / "signatures"), config=_minhash(), language=language)


def find_near_duplicates(folder: Path, *, num_tasks: int, work: Path, workers: int) -> Path:
    """From the signatures to a folder with a file for each task: uint32 numbers, rising, of its documents that are
    nearly the same as an earlier one."""
    signatures, pairs, clusters, later = (str(folder / name) for name in ("signatures", "pairs", "clusters", "later"))
    config = _minhash()
    matching = MinhashDedupBuckets(signatures, pairs, config=config)
    Stage("matching", [matching], tasks=config.num_buckets, work=work, workers=workers).run()
    clustering = MinhashDedupCluster(pairs, clusters, config=config, save_cluster_id=True, lines_to_buffer=1 << 16)
    Stage("clustering", [clustering], tasks=1, work=work, workers=1).run()
    # datatrove keeps the one that most matches were merged into; of each cluster, the first is to stay.
    seen: set[int] = set()
    Path(later).mkdir(exist_ok=True)
    for rank in range(num_tasks):
        file = Path(clusters, f"{rank:06d}.clusters")
        members = np.fromfile(file, "<u4").reshape(-1, 2).tolist() if file.exists() else []
        copies = []
        for document, cluster in members:
            if cluster in seen:
                copies.append(document)
            seen.add(cluster)
        np.array(copies, "<u4").tofile(Path(later, f"{rank:05d}"))
    return Path(later)


def _judged(found: str | Rejection, filters: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The text as the filters leave it, or the text as it was with who dropped it and why."""
    if isinstance(found, Rejection):
        return {"text": None, "dropped_by": "reading", "reason": found.kind, "message": str(found)}
    document = Document(text=found, id="")
    for name, quality in filters:
        try:
            verdict = quality.filter(document)
        except _SURPRISES as error:
            verdict = False, f"failed with {type(error).__name__}"
        if verdict is not True:
            return {"text": found, "dropped_by": name, "reason": verdict[1]}
    return {"text": document.text}


def _minhash() -> MinhashConfig:
    # datatrove's default hash needs an older xxhash than ours.
    return MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))


def _end_with_parent() -> None:
    """A worker whose run was killed must not go on writing: the next run writes to the same files."""
    Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)
