"""The files that a config names: are they there, before anything is started."""

import os
from pathlib import Path

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig

CORPUS_FILES = ("train.bin", "train.idx", "validation.bin", "validation.idx")


def check_files(config: RunConfig) -> None:
    """Raise ``UserError`` that names every missing or unreadable file: the tokenizer, the four files of each corpus."""
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
    if problems:
        raise UserError(problems)


def _readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _mend(command: str) -> str:
    return f"make it with `{command} ...` (`make train` does so for the demo) or mend the path"
