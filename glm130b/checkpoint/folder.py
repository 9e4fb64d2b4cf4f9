"""The files of a run's checkpoints: written beside, renamed when whole, ``latest`` moved last.

runs/tiny/checkpoints/
    latest                  text: the name of the newest whole checkpoint
    step-00000100/          run.json and the shards of torch.distributed.checkpoint
    .step-00000150.writing  a save that a kill cut short; the next save of that step clears it
"""

import os
import shutil
from pathlib import Path

from glm130b.config.errors import UserError
from glm130b.data.corpus.durable import sync_folder


class CheckpointFolder:
    """Names, the order of renames, and nothing about contents. File operations are the first rank's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None when the run has none.

        Raises UserError when ``latest`` names one that is not whole, or is gone while checkpoints are there: starting
        anew would overwrite them.
        """
        pointer = self._path / "latest"
        if not pointer.exists():
            if saved := sorted(self._path.glob("step-*")):
                raise UserError(
                    f"{pointer}: is missing although {saved[-1].name} is there; write that name into it to resume, or "
                    "choose another name for the run to start anew"
                )
            return None
        checkpoint = self._path / pointer.read_text(encoding="utf-8", errors="replace").strip()
        if not _is_whole(checkpoint):
            raise UserError(
                f"{pointer}: names {checkpoint.name!r}, which is not a whole checkpoint; write the name of another "
                "step-* folder into it, or choose another name for the run to start anew"
            )
        return checkpoint

    def at(self, step: int) -> Path:
        """The whole checkpoint of ``step``; raises UserError when there is none."""
        checkpoint = self._path / f"step-{step:08d}"
        if not _is_whole(checkpoint):
            there = ", ".join(str(int(path.name[5:])) for path in sorted(self._path.glob("step-*")) if _is_whole(path))
            raise UserError(f"{self._path}: has no whole checkpoint of step {step}; it has {there or 'none'}")
        return checkpoint

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of ``step`` into; what earlier kills left half-written goes."""
        for leftover in self._path.glob(".step-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        writing = self.writing(step)
        writing.mkdir(parents=True)
        return writing

    def writing(self, step: int) -> Path:
        """The folder that ``begin`` made, as every rank sees it."""
        return self._path / f".step-{step:08d}.writing"

    def commit(self, step: int, description: str) -> Path:
        """Add ``run.json``, give the written checkpoint its name and point ``latest`` at it, in this order."""
        writing, whole = self.writing(step), self._path / f"step-{step:08d}"
        _write(writing / "run.json", description)
        sync_folder(writing)
        if whole.exists():
            whole.rename(self._path / f".step-{step:08d}.replaced")
        writing.rename(whole)
        sync_folder(self._path)
        beside = self._path / ".latest.writing"
        _write(beside, whole.name)
        beside.replace(self._path / "latest")
        sync_folder(self._path)
        return whole


def _is_whole(checkpoint: Path) -> bool:
    return all((checkpoint / file).exists() for file in (".metadata", "run.json"))


def _write(file: Path, text: str) -> None:
    with file.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
