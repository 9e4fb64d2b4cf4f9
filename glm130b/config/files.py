"""The files that a config names: are they there, and may the run write its own, before anything is started."""

import os
from pathlib import Path

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig

CORPUS_FILES = ("train.bin", "train.idx", "validation.bin", "validation.idx")


def check_files(config: RunConfig) -> None:
    """Raise ``UserError`` naming every file that cannot be read (tokenizer, corpora) or written (the run's folder)."""
    problems = []
    tokenizer = Path(config.data.tokenizer)
    if not _readable(tokenizer):
        problems.append(f"data.tokenizer: {tokenizer} is no readable file; {_mend('glm130b tokenizer')}")
    for kind, sources in (("text", config.data.text), ("instructions", config.data.instructions)):
        for name, source in sources.items():
            folder = Path(source.path)
            missing = ", ".join(file for file in CORPUS_FILES if not _readable(folder / file))
            if missing:
                what = f"{folder} lacks a readable {missing}" if folder.is_dir() else f"{folder} is no folder"
                problems.append(f"data.{kind}.{name}.path: {what}; {_mend('glm130b prepare')}")
    folder = Path(config.folder) / config.name
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problems.append(f"folder: {folder} cannot be made, {existing} is no folder to write in; name another folder")
    if problems:
        raise UserError(problems)


def _readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _mend(command: str) -> str:
    return f"make it with `{command} ...` (`make train` does so for the demo) or mend the path"
