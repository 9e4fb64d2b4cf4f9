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


class CheckpointFolder:
    """Names, the order of renames, and nothing about contents. File operations are the first rank's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None when the run has none.

        Raises UserError when ``latest`` names one that is not there.
        """
        pointer = self._path / "latest"
        if not pointer.exists():
            return None
        checkpoint = self._path / pointer.read_text().strip()
        if not (checkpoint / ".metadata").exists():
            raise UserError(
                f"{pointer}: names {checkpoint.name!r}, which is not a whole checkpoint; write the name of another "
                "step-* folder into it, or remove the file to start anew"
            )
        return checkpoint

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of ``step`` into."""
        writing = self.writing(step)
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
        return writing

    def writing(self, step: int) -> Path:
        """The folder that ``begin`` made, as every rank sees it."""
        return self._path / f".step-{step:08d}.writing"

    def commit(self, step: int) -> Path:
        """Give the written checkpoint its name and point ``latest`` at it."""
        whole = self._path / f"step-{step:08d}"
        shutil.rmtree(whole, ignore_errors=True)
        self.writing(step).rename(whole)
        _sync(self._path)
        beside = self._path / ".latest.writing"
        with beside.open("w") as file:
            file.write(whole.name)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path / "latest")
        _sync(self._path)
        return whole


def _sync(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
