"""Small checkpoints that are whole, without a run."""

import hashlib
from pathlib import Path

from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.durable import FileSummary


def write_checkpoint(folder: CheckpointFolder, step: int, content: str = "whole") -> Path:
    """As the store writes it, with one shard that holds ``content``."""
    writing = folder.begin(step)
    written = {"tensors.json": '{"tensors":{}}', "__0_0.distcp": content}
    for name, text in written.items():
        (writing / name).write_text(text)
    return folder.commit(step, "{}", {name: summary(text) for name, text in written.items()})


def summary(text: str) -> FileSummary:
    return FileSummary(bytes=len(text), sha256=hashlib.sha256(text.encode()).hexdigest())


def content(checkpoint: Path) -> str:
    return (checkpoint / "__0_0.distcp").read_text()
