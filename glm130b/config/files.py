"""The files that a config names: are they there, and may the run write its own, before anything is started."""

import os
from pathlib import Path

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig

CORPUS_FILES = tuple(f"{split}.{suffix}" for split in ("train", "validation") for suffix in ("bin", "idx", "origins"))


def check_files(config: RunConfig) -> None:
    """Raise ``UserError`` naming every file that cannot be read (tokenizer, corpora) or written (the run's folder)."""
    problems = []
    tokenizer = Path(config.data.tokenizer)
    if not _readable(tokenizer):
        problems.append(f"data.tokenizer: {tokenizer} is no readable file; {_mend('glm130b tokenizer train')}")
    for kind, sources in (("text", config.data.text), ("instructions", config.data.instructions)):
        for name, source in sources.items():
            if what := _lacking(source.path):
                problems.append(f"data.{kind}.{name}.path: {what}; {_mend('glm130b prepare')}")
    weights = config.initial_weights
    if weights and not _readable(Path(weights) / "run.json"):
        problems.append(
            f"initial_weights: {weights} is no checkpoint; name a folder such as runs/NAME/checkpoints/step-00000100"
        )
    folder = Path(config.folder) / config.name
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problems.append(f"folder: {folder} cannot be made, {existing} is no folder to write in; name another folder")
    if problems:
        raise UserError(problems)


def _lacking(path: str) -> str | None:
    """What a prepared folder, or a Megatron ``.bin`` and ``.idx``, does not have; None when it is there."""
    if all(_readable(Path(path + suffix)) for suffix in (".bin", ".idx")):
        return None
    missing = ", ".join(file for file in CORPUS_FILES if not _readable(Path(path) / file))
    if not missing:
        return None
    if Path(path).is_dir():
        return f"{path} lacks a readable {missing}"
    return f"{path} is no folder, and no readable {path}.bin and {path}.idx are there"


def _readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _mend(command: str) -> str:
    return f"make it with `{command} ...` (`make train` does so for the demo) or mend the path"
