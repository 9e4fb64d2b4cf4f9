"""``glm130b checkpoint``: look at a run's checkpoints, check them, and remove old ones."""

import re
import shutil
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from glm130b.checkpoint.checksums import summed_files, verify
from glm130b.checkpoint.coverage import coverage_problems
from glm130b.checkpoint.description import Description
from glm130b.checkpoint.folder import DESCRIPTION, CheckpointFolder
from glm130b.checkpoint.inspection import inspected, size
from glm130b.checkpoint.layout import Layout
from glm130b.checkpoint.lock import RunLock
from glm130b.config.errors import UserError

_PATH = "a checkpoint, or the folder of a run, such as runs/tiny, for its newest"


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``glm130b checkpoint``."""
    tasks = parser.add_subparsers(dest="task", metavar="inspect|verify|list|prune", required=True)

    inspect = tasks.add_parser("inspect", help="what a checkpoint holds and how its run came there")
    inspect.add_argument("path", type=Path, help=_PATH)
    inspect.add_argument("--tensors", action="store_true", help="list every tensor, too")

    checks = tasks.add_parser("verify", help="check every byte; exit status 2 when something is damaged")
    checks.add_argument("path", type=Path, help="a checkpoint, or the folder of a run, for all of its checkpoints")

    listing = tasks.add_parser("list", help="the checkpoints of a run, oldest first")
    listing.add_argument("run", type=Path, help="folder of a run, such as runs/tiny")

    prune = tasks.add_parser("prune", help="remove old checkpoints, and what kills have left half-written")
    prune.add_argument("run", type=Path, help="folder of a run that is not at work")
    prune.add_argument("--keep-last", type=_positive, required=True, metavar="N", help="the newest that stay")
    prune.add_argument("--keep-every", type=_positive, metavar="N", help="those of multiples of this step stay, too")
    prune.add_argument(
        "--set-aside", action="store_true", help="remove what a run set aside, damaged or abandoned, too"
    )
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(arguments: Namespace) -> int:
    """Do one of the four. Raises UserError."""
    tasks = {"inspect": _inspect, "verify": _verify, "list": _list, "prune": _prune}
    try:
        return tasks[arguments.task](arguments)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; mend that and try again") from error


def _inspect(arguments: Namespace) -> int:
    for line in inspected(_checkpoint(arguments.path), with_tensors=arguments.tensors):
        print(line)
    return 0


def _verify(arguments: Namespace) -> int:
    """The checkpoints one by one; problems are told as they are found."""
    path = arguments.path
    checkpoints = [path] if (path / DESCRIPTION).exists() else _of_run(path).whole()
    if not checkpoints:
        raise UserError(f"{path}: has no whole checkpoint to verify; `glm130b checkpoint list` shows what there is")
    damaged = 0
    for checkpoint in checkpoints:
        found = list(_problems(checkpoint))
        damaged += bool(found)
        print(*(found or [f"{checkpoint}: whole"]), sep="\n", flush=True)
    return UserError.exit_status if damaged else 0


def _problems(checkpoint: Path) -> Iterator[str]:
    """Everything that is wrong with a checkpoint, one sentence each."""
    if damages := verify(checkpoint):
        yield from damages
        return
    try:
        Description.read(checkpoint)
        layout = Layout.read(checkpoint)
    except UserError as error:
        yield from error.problems
        return
    yield from coverage_problems(checkpoint, layout, summed_files(checkpoint))


def _list(arguments: Namespace) -> int:
    folder = _of_run(arguments.run)
    whole, newest = folder.whole(), folder.candidates()[:1]
    states = {path: "latest" if path in newest else "whole" for path in whole}
    states |= dict.fromkeys(_leftovers(folder), "half-written")
    for path in folder.path.glob("*step-*"):  # set aside by a run, or lacking files
        states.setdefault(path, path.name.partition("step-")[0].strip("-") or "not whole")
    if not states:
        raise UserError(f"{arguments.run}: has no checkpoints; name the folder of a run that has saved one")
    keep_every = _keep_every_steps(newest)
    for path in sorted(states, key=_number):
        state = states[path]
        stays = keep_every and state in ("latest", "whole") and _number(path) % keep_every == 0
        print(
            f"step {_number(path):>8}{_samples(path):>16} samples{size(_bytes(path)):>12}{_age(path):>14}  {state}"
            f"{', stays for ever' * bool(stays)}"
        )
    if remark := folder.remark():
        print(remark)
    return 0


def _prune(arguments: Namespace) -> int:
    folder = _of_run(arguments.run)
    path = folder.path.resolve()
    lock = RunLock.take(path.parent if path.name == "checkpoints" else path, patience_seconds=0)
    try:
        if lock.warning:
            print(lock.warning)
        leftovers, whole = _leftovers(folder), folder.whole()
        old = folder.surplus(keep_last=arguments.keep_last, keep_every_steps=arguments.keep_every)
        aside = folder.aside() if arguments.set_aside else []
        removed = [*leftovers, *old, *aside]
        sizes = {path: _bytes(path) for path in removed}
        if not arguments.dry_run:
            for leftover in leftovers:
                shutil.rmtree(leftover)
            folder.delete([*old, *aside])
    finally:
        lock.release()
    for path in removed:
        print(f"{'would remove' if arguments.dry_run else 'removed'} {path.name}, {size(sizes[path])}")
    for path in (path for path in folder.aside() if path not in removed):
        print(f"{path.name}, {size(_bytes(path))}, was set aside and stays; --set-aside removes it, too")
    freed = size(sum(sizes[path] for path in removed))
    print(f"{arguments.run}: {len(whole) - len(old)} checkpoints stay, {freed} {'to be ' * arguments.dry_run}freed")
    return 0


def _of_run(run: Path) -> CheckpointFolder:
    """The checkpoints of a run; their own folder is taken for the run's, too."""
    inside = run / "checkpoints"
    if not run.is_dir():
        raise UserError(f"{run}: is no folder; name the folder of a run, such as runs/tiny")
    return CheckpointFolder(inside if inside.is_dir() else run)


def _checkpoint(path: Path) -> Path:
    """The checkpoint that is named, or the newest of the run that is."""
    if (path / DESCRIPTION).exists():
        return path
    newest = _of_run(path).latest()
    if newest is None:
        raise UserError(f"{path}: is no checkpoint, and no run that has one; name a step-* folder, or a run's folder")
    return newest


def _leftovers(folder: CheckpointFolder) -> list[Path]:
    """What saves and deletions that a kill cut short have left."""
    whole = set(folder.whole())
    return sorted(path for path in folder.path.glob(".step-*") if path not in whole)


def _keep_every_steps(newest: list[Path]) -> int | None:
    """As the newest checkpoint's config has it."""
    with suppress(UserError, IndexError, AttributeError):
        every = Description.read(newest[0]).config.get("checkpoint", {}).get("keep_every_steps")
        return every if isinstance(every, int) else None
    return None


def _number(path: Path) -> int:
    """The step in the name of anything in the folder."""
    found = re.search(r"step-(\d+)", path.name)
    return int(found[1]) if found else 0


def _samples(path: Path) -> str:
    with suppress(UserError):
        return f"{Description.read(path).progress.samples:,}"
    return "?"


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _age(path: Path) -> str:
    minutes = max(time.time() - path.stat().st_mtime, 0) / 60
    for unit, length in (("days", 2880), ("hours", 120)):
        if minutes >= length:
            return f"{minutes * 2 / length:.0f} {unit} old"
    return f"{minutes:.0f} min old"


def _positive(text: str) -> int:
    with suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise ArgumentTypeError(f"{text} is no whole number from 1 on")
