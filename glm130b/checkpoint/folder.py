"""The files of a run's checkpoints: written beside, renamed when whole, ``latest`` moved last.

runs/tiny/checkpoints/
    latest                  text: the name of the newest checkpoint of the run as it went
    step-00000100/          run.json, tensors.json, the ranks' shards, and checksums.json over all of them
    damaged-step-00000050/  one that was not what had been written; nothing loads it
    abandoned-step-00000110 one that the run has gone back from; nothing loads it either, and retention removes it
    .step-00000150.writing  a save that a kill cut short; the next save clears it
    .step-00000100.replaced what stood at a step that is being saved once more; it counts until the new one has its name
    .step-00000025.deleted  being deleted
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from glm130b.checkpoint import checksums
from glm130b.checkpoint.checksums import CHECKSUMS
from glm130b.checkpoint.layout import TENSORS
from glm130b.config.errors import UserError
from glm130b.durable import DurableFile, FileSummary, replace_durably, sync_folder

DESCRIPTION = "run.json"

_CHECKPOINT = re.compile(r"step-(\d{8,})|\.step-(\d{8,})\.replaced")
_ASIDE = re.compile(r"(abandoned|damaged)-step-(\d{8,})(-\d+)?")


class CheckpointFolder:
    """Names, the order of renames, and nothing about contents. File operations are the first rank's.

    To delete many TB takes its time, so ``advance`` is called after each file of it.

    A checkpoint is whole when all that a commit writes is there; whether it is also undamaged, ``checksums`` tells.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the folder, once at the start of a run: when it is missing later, the file system has gone."""
        self.path.mkdir(parents=True, exist_ok=True)
        sync_folder(self.path.parent)

    def whole(self) -> list[Path]:
        """Whole checkpoints by their step, oldest first. Raises OSError when the folder is there and unreadable."""
        found: dict[int, Path] = {}
        for path in sorted(self.path.iterdir(), reverse=True) if self.path.is_dir() else ():  # ".step" behind "step"
            if (step := _step(path)) is not None and _is_whole(path):
                found.setdefault(step, path)
        return [found[step] for step in sorted(found)]

    def candidates(self) -> list[Path]:
        """What the run may go on from, newest first: the whole checkpoints from the one that ``latest`` names down.

        A newer one than that is of a save that was not finished, or from before the run was taken back. When ``latest``
        tells nothing (see ``remark``), all whole checkpoints are candidates.
        """
        newest = self._latest_step()
        return [path for path in reversed(self.whole()) if newest is None or step_of(path) <= newest]

    def remark(self) -> str | None:
        """What is strange about ``latest``, and what is done about it, in one sentence; None when nothing is."""
        pointer, named, candidates = self.path / "latest", self._latest_step(), self.candidates()
        if not candidates or step_of(candidates[0]) == named:
            return None
        taken = f"is taken, {candidates[0].name}"
        if named is not None:
            return f"{pointer}: names step {named}, which is not a whole checkpoint; the newest below it {taken}"
        return f"{pointer}: {'does not name a checkpoint' if pointer.exists() else 'is missing'}; the newest {taken}"

    def latest(self) -> Path | None:
        """The first candidate, or None when the run has never had a checkpoint.

        Raises UserError when it has had some and none is left: starting anew would overwrite what may be mended.
        """
        if candidates := self.candidates():
            return candidates[0]
        self.check_unused()
        return None

    def check_unused(self) -> None:
        """Raise UserError when there are remains of checkpoints, whole or not."""
        if not self.path.is_dir():
            return
        if remains := sorted(path.name for path in self.path.iterdir() if re.match(r"latest$|(\w+-)?step-", path.name)):
            raise UserError(
                f"{self.path}: holds {', '.join(remains[:3])}{' ...' * (len(remains) > 3)}, and no whole checkpoint of "
                "this version; copy one back, or choose another name for the run to start anew"
            )

    def at(self, step: int) -> Path:
        """The whole checkpoint of ``step``; raises UserError when there is none."""
        whole = {step_of(path): path for path in self.whole()}
        if step not in whole:
            there = ", ".join(map(str, whole)) or "none"
            raise UserError(f"{self.path}: has no whole checkpoint of step {step}; it has {there}")
        return whole[step]

    def begin(self, step: int, advance: Callable[[], None] = lambda: None) -> Path:
        """An empty folder to write the checkpoint of ``step`` into; what earlier kills left half-written goes."""
        for replaced in self.path.glob(".step-*.replaced"):
            if not (whole := self._at(step_of(replaced))).exists():
                replaced.rename(whole)
        for leftover in self.path.glob(".step-*"):
            _remove(leftover, advance, ignore_errors=True)
        writing = self.writing(step)
        writing.mkdir()  # not its parents: a folder that is gone is a file system that is gone
        return writing

    def writing(self, step: int) -> Path:
        """The folder that ``begin`` made, as every rank sees it."""
        return self.path / f".step-{step:08d}.writing"

    def abort(self, step: int, advance: Callable[[], None] = lambda: None) -> None:
        """Drop what has been written of a checkpoint that failed, so that a full disk has its room again."""
        _remove(self.writing(step), advance, ignore_errors=True)

    def commit(
        self,
        step: int,
        description: str,
        written: Mapping[str, FileSummary],
        advance: Callable[[], None] = lambda: None,
    ) -> Path:
        """Add ``run.json`` and the checksums, give the checkpoint its name and point ``latest`` at it, in this order.

        ``written`` is what stands in the folder already, every file of it synced. At any instant of this the folder has
        whole candidates: the one before, or the new one.
        """
        writing, whole = self.writing(step), self._at(step)
        summaries = {**written, DESCRIPTION: _write(writing / DESCRIPTION, description)}
        _write(writing / CHECKSUMS, checksums.to_json(summaries))
        sync_folder(writing)
        replaced = self.path / f".{whole.name}.replaced"
        if whole.exists():
            whole.rename(replaced)
        writing.rename(whole)
        sync_folder(self.path)
        replace_durably(self.path / "latest", whole.name)
        _remove(replaced, advance, ignore_errors=True)
        return whole

    def set_aside(self, checkpoint: Path, word: str = "damaged") -> Path:
        """Rename a checkpoint so that nothing takes it for one; its new path. Nothing is deleted."""
        name = f"{word}-step-{step_of(checkpoint):08d}"
        taken = sum(1 for _ in self.path.glob(f"{name}*"))
        aside = self.path / (f"{name}-{taken + 1}" if taken else name)
        checkpoint.rename(aside)
        sync_folder(self.path)
        return aside

    def go_back_to(self, checkpoint: Path) -> None:
        """Have the run go on from ``checkpoint``: newer ones, of what is not its past any more, are set aside."""
        replace_durably(self.path / "latest", checkpoint.name)
        self.abandon_after(step_of(checkpoint))

    def abandon_after(self, step: int) -> None:
        """Set the checkpoints of later steps aside: they are not the past of a run that goes on from ``step``, and
        retention, a rewind, or one that is damaged would have it take them for that."""
        for newer in self.whole():
            if step_of(newer) > step:
                self.set_aside(newer, "abandoned")

    def aside(self) -> list[Path]:
        """What has been set aside, by name."""
        return sorted(path for path in self.path.glob("*-step-*") if _ASIDE.fullmatch(path.name))

    def left_behind(self, *, keep_last: int | None) -> list[Path]:
        """What has been abandoned at steps below the ``keep_last`` newest candidates (None, or fewer of them: nothing).

        A person who wants to look at it has had the time in which the run came so far.
        """
        newest = [] if keep_last is None else self.candidates()[:keep_last]
        if keep_last is None or len(newest) < keep_last:
            return []
        oldest = step_of(newest[-1])
        return [path for path in self.aside() if path.name.startswith("abandoned") and step_of(path) < oldest]

    def surplus(self, *, keep_last: int | None, keep_every_steps: int | None) -> list[Path]:
        """The candidates but the ``keep_last`` newest (None: all) and those of multiples of ``keep_every_steps``.

        The newest always stays.
        """
        old = [] if keep_last is None else self.candidates()[max(1, keep_last) :]
        return [path for path in old if not keep_every_steps or step_of(path) % keep_every_steps]

    def retain(
        self, *, keep_last: int | None, keep_every_steps: int | None, advance: Callable[[], None] = lambda: None
    ) -> list[Path]:
        """Delete the ``surplus`` and what was ``left_behind``; the paths of both. Raises OSError as ``delete`` does."""
        gone = self.surplus(keep_last=keep_last, keep_every_steps=keep_every_steps)
        gone += self.left_behind(keep_last=keep_last)
        self.delete(gone, advance)
        return gone

    def delete(self, checkpoints: Sequence[Path], advance: Callable[[], None] = lambda: None) -> None:
        """Delete checkpoints, or what was set aside. Raises OSError when one cannot be; those behind it stay then."""
        for path in checkpoints:
            going = self.path / f".step-{step_of(path):08d}.deleted"  # half of one must not look whole
            path.rename(going)
            _remove(going, advance)

    def _at(self, step: int) -> Path:
        return self.path / f"step-{step:08d}"

    def _latest_step(self) -> int | None:
        """Of the checkpoint that ``latest`` names; None when it is missing or names none."""
        try:
            name = (self.path / "latest").read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        found = re.fullmatch(r"step-(\d{8,18})", name, re.ASCII)
        return int(found[1]) if found else None


def _is_whole(checkpoint: Path) -> bool:
    return all((checkpoint / file).exists() for file in (DESCRIPTION, TENSORS, CHECKSUMS))


def _step(path: Path) -> int | None:
    """Of a folder named as a checkpoint."""
    found = _CHECKPOINT.fullmatch(path.name)
    return int(found[1] or found[2]) if found else None


def step_of(checkpoint: Path) -> int:
    """Steps taken when it was saved, by its name; also of one that has been set aside."""
    found = re.search(r"step-(\d{8,})", checkpoint.name)
    assert found
    return int(found[1])


def _remove(folder: Path, advance: Callable[[], None], *, ignore_errors: bool = False) -> None:
    if folder.is_symlink():  # what it leads to is not this run's to delete
        folder.unlink()
        advance()
        return
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # rmtree tells of it
                Path(parent, name).unlink()
                advance()
    shutil.rmtree(folder, ignore_errors=ignore_errors)


def _write(file: Path, text: str) -> FileSummary:
    stream = DurableFile(file)
    try:
        stream.write(text.encode())
        return stream.close()
    except BaseException:
        stream.abandon()
        raise
