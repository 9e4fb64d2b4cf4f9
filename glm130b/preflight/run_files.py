"""The run itself: its config for this many processes, the files it reads, its checkpoints."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from glm130b.config.derived import data_parallel_size, grid_size
from glm130b.config.errors import UserError
from glm130b.config.files import check_files
from glm130b.config.rules import problems
from glm130b.data.corpus.manifest import SPLITS, Split
from glm130b.data.dataset import GLMDataset
from glm130b.data.sources import Sources
from glm130b.preflight.finding import Finding, broken, failed, ok, skipped, warning
from glm130b.preflight.site import Site

_MOST_FILES = 16


def config_fits(site: Site) -> Iterator[Finding]:
    """The layout against the job's processes, and the tensor axis against this machine's GPUs."""
    if (config := site.config) is None:
        yield skipped("config", "none is given, so only the machine is checked")
        return
    if found := problems(config, world_size=site.world_size):
        yield from (broken("config", problem) for problem in found)
        return
    parallel, size = config.parallel, site.job_size
    grid = f"{config.name}: TP {parallel.tensor} x PP {parallel.pipeline} x DP {data_parallel_size(config, size)}"
    if site.num_gpus and parallel.tensor > site.num_gpus:
        mend = f"set parallel.tensor to {site.num_gpus} or less: between machines it is slow"
        yield warning("config", f"{grid}, but {site.num_gpus} GPUs here", mend)
    elif site.world_size is None:
        yield ok("config", f"{grid}, {grid_size(config, size)} processes at least (--world-size N checks a number)")
    else:
        yield ok("config", f"{grid}, {grid_size(config, size)} of {site.world_size} processes train")


def files(site: Site) -> Iterator[Finding]:
    """What the config names is there, is opened as training opens it (sizes against manifests, tokenizer against
    corpora), and the run may write its own."""
    if (config := site.config) is None:
        return
    opened: dict[str, Sources] = {}

    def open_split(split: Split) -> None:
        opened[split] = GLMDataset.open(config, split=split).sources

    found = _problems(lambda: check_files(config))
    if not any(problem.startswith("data.") for problem in found):
        found += [problem for split in SPLITS for problem in _problems(partial(open_split, split))]
    yield from (broken("files", problem) for problem in dict.fromkeys(found))
    for (section, name), corpus in opened["train"].corpora.items() if "train" in opened else ():
        yield ok("data", f"{section}.{name}: {corpus.num_tokens:,} tokens to train on")


def checkpoints(site: Site) -> Iterator[Finding]:
    """Some files of the run's newest checkpoint can be read from here: few, since every node asks. Whether it is
    undamaged, `glm130b checkpoint verify` tells, and every start does."""
    if site.run_folder is None:
        return
    folder = site.run_folder / "checkpoints"
    steps = sorted(folder.glob("step-*")) if folder.is_dir() else []
    if not steps:
        yield ok("checkpoints", f"none in {folder}, the run begins")
        return
    within = sorted(steps[-1].iterdir())
    looked_at = within[:: max(1, -(-len(within) // _MOST_FILES))]
    unreadable = [file for file in looked_at if not _readable(file)]
    if unreadable:
        value = f"{unreadable[0]} cannot be read, as {len(unreadable)} of {len(looked_at)} files"
        yield failed("checkpoints", value, "give this user the right to read them, or look at the file system")
    else:
        yield ok("checkpoints", f"{len(steps)} in {folder}, {steps[-1].name} has {len(looked_at)} readable files")


def _readable(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            stream.read(1)
    except OSError:
        return False
    return True


def _problems(action: Callable[[], object]) -> list[str]:
    try:
        action()
    except UserError as error:
        return list(error.problems)
    return []
