"""A config's file and those that it names: are they there, and may the run write its own, before it is started."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from glm130b.config.errors import FileSystemGone, UserError, unreadable
from glm130b.config.load import MissingConfig, dump_config, load_config
from glm130b.config.patience import patiently
from glm130b.config.sections import CheckpointConfig, RunConfig
from glm130b.config.yaml_dialect import parse

CORPUS_FILES = tuple(f"{split}.{suffix}" for split in ("train", "validation") for suffix in ("bin", "idx", "origins"))


def check_files(config: RunConfig) -> None:
    """Raise ``UserError`` naming every file that cannot be read (tokenizer, corpora) or written (the run's folder).

    ``FileSystemGone`` where a file system gives no answer.
    """
    try:
        found = list(_problems(config))
    except OSError as error:
        mend = "give this user the right to read it, or mend the path"
        raise unreadable(error.filename, error, mend=mend) from None
    if found:
        raise UserError(found)


def await_config(path: str, overrides: Sequence[str], *, tell: Callable[[str], None]) -> RunConfig:
    """``load_config`` at a restart, which waits for the config's file as ``await_files`` does for those that it names.

    As nobody knows the config's own ``checkpoint.patience_seconds`` yet, it waits for the default.
    """
    seconds: float = CheckpointConfig.model_fields["patience_seconds"].default
    try:
        return patiently(
            lambda: load_config(path, overrides),
            seconds=seconds,
            may_pass=lambda error: isinstance(error, (MissingConfig, FileSystemGone)),
            tell=tell,
        )
    except MissingConfig as error:
        raise _gone(error, f"{seconds:.0f} s") from None


def await_files(config: RunConfig, *, tell: Callable[[str], None]) -> None:
    """``check_files`` at a restart: what was there at the first start and is not now has gone with its file system.

    It is waited for ``checkpoint.patience_seconds``, which ``tell`` hears of; then raises ``FileSystemGone``. A config
    that names other files than the last start's may be mistaken, and is not waited for.
    """
    if _names_other_files(config):
        check_files(config)
        return
    seconds = config.checkpoint.patience_seconds
    try:
        patiently(
            lambda: check_files(config), seconds=seconds, may_pass=lambda error: isinstance(error, UserError), tell=tell
        )
    except UserError as error:
        raise _gone(error, f"{seconds:.0f} s (checkpoint.patience_seconds)") from None


def _names_other_files(config: RunConfig) -> bool:
    """Than the config in the run's folder, as far as that can be read."""
    file = Path(config.folder) / config.name / "config.yaml"
    try:
        last = parse(file.read_text(encoding="utf-8"), origin=str(file))
    except (OSError, UserError, UnicodeDecodeError):
        return False
    now = parse(dump_config(config), origin="")
    return isinstance(last, dict) and any(last.get(key) != now[key] for key in ("data", "initial_weights"))


def _gone(error: UserError, waited: str) -> FileSystemGone:
    since = f"it was there at the first start, and has not been for {waited}"
    return FileSystemGone([f"{problem}; {since}" for problem in error.problems])


def _problems(config: RunConfig) -> Iterator[str]:
    """One sentence each. Raises OSError where nothing can be told."""
    tokenizer = Path(config.data.tokenizer)
    if not _readable(tokenizer):
        yield f"data.tokenizer: {tokenizer} is no readable file; {_mend('glm130b tokenizer train')}"
    for kind, sources in (("text", config.data.text), ("instructions", config.data.instructions)):
        for name, source in sources.items():
            if what := _lacking(source.path):
                yield f"data.{kind}.{name}.path: {what}; {_mend('glm130b prepare')}"
    weights = config.initial_weights
    if weights and not _readable(Path(weights) / "run.json"):
        yield f"initial_weights: {weights} is no checkpoint; name a folder such as runs/NAME/checkpoints/step-00000100"
    folder = Path(config.folder) / config.name
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield f"folder: {folder} cannot be made, {existing} is no folder to write in; name another folder"


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
