"""From a YAML file and ``section.key=value`` overrides to a checked config, and back to YAML."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glm130b.config.errors import UserError, unreadable
from glm130b.config.rules import check
from glm130b.config.sections import RunConfig
from glm130b.config.validation import validated
from glm130b.config.yaml_dialect import parse, write

_MOST_BYTES = 1 << 20
_SOURCES = ("data", "text"), ("data", "instructions")


class MissingConfig(UserError):
    """A config's file, or one that it is based on, is not there."""


def load_config(path: str | Path, overrides: Sequence[str] = (), *, world_size: int | None = None) -> RunConfig:
    """What ``read_config`` reads, checked against every rule (``rules.problems``). Raises ``UserError`` with all
    problems at once."""
    config = read_config(path, overrides)
    check(config, world_size)
    return config


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that the file and the overrides describe. Each value is valid by itself; rules between them are not
    checked.

    ``base: other.yaml`` in a file starts from that file, found next to it: sections are merged key by key, anything
    else is replaced; ``{}`` empties a section, and null in place of a source of data takes it out. An override replaces
    what stands at its key; its value is YAML, so ``batch.ramp=null`` and ``data.instructions={}`` work. Raises
    ``UserError`` with all problems at once.
    """
    tree = _read(Path(path))
    problems: list[str] = []
    for override in overrides:
        problems += _apply(tree, override)
    try:
        config = validated(tree)
    except UserError as error:
        raise UserError([*problems, *error.problems]) from None
    if problems:
        raise UserError(problems)
    return config


def dump_config(config: RunConfig) -> str:
    """The whole resolved config, defaults included, as YAML that loads back equal."""
    return write(config.model_dump(mode="json"))


def base_of(path: Path) -> Path | None:
    """The file that ``path`` starts from, if it names one."""
    return _split(path)[0]


def _read(path: Path, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The data of a file laid over that of its bases; ``derived`` are the files that led here."""
    if path.resolve() in derived:
        raise UserError(f"{derived[-1]}: base leads back to {path}; let one of the files stand without a base")
    base, tree = _split(path)
    return tree if base is None else _merged(_read(base, (*derived, path.resolve())), tree)


def _split(path: Path) -> tuple[Path | None, dict[str, Any]]:
    """The base of a file, and its own data."""
    tree = parse(_text(path), origin=str(path))
    if not isinstance(tree, dict):
        found = "is empty" if tree is None else "holds no key"
        raise UserError(f"{path}: {found}; write a config of `key: value` lines, configs/tiny.yaml is an example")
    base = tree.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise UserError(f"{path}: base is not a file name; write for example base: glm-130b.yaml")
    return path.parent / base if base is not None else None, tree


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise UserError(f"{path}: is longer than {_MOST_BYTES} bytes, which no config is; name the file of a run")
        return raw.decode("utf-8-sig")
    except FileNotFoundError:
        beside = sorted(path.parent.glob("*.yaml"))
        close = difflib.get_close_matches(path.name, [file.name for file in beside], n=1)
        mend = f"the nearest is {path.parent / close[0]}" if close else "check the path"
        raise MissingConfig(f"{path}: no such file; {mend}") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: is not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise unreadable(path, error, mend="name a readable YAML file") from None


def _merged(under: dict[str, Any], over: dict[str, Any], section: tuple[str, ...] = ()) -> dict[str, Any]:
    """``over`` laid over ``under``; both stand at ``section`` of a config."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and value and isinstance(merged.get(key), dict)
        _put(merged, section, key, _merged(merged[key], value, (*section, key)) if both else value)
    return merged


def _put(tree: dict[str, Any], section: tuple[str, ...], key: str, value: Any) -> None:
    """Set ``key`` of ``tree``, which stands at ``section`` of a config; null takes a source of data out.

    Null for a name that is not there stays, and is told as a mistake.
    """
    if value is None and section in _SOURCES and key in tree:
        del tree[key]
    else:
        tree[key] = value


def _apply(tree: dict[str, Any], override: str) -> list[str]:
    """Set one key of ``tree``; the problems with how the override is written."""
    key, equals, value = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not all((*sections, last)):
        return [f"override {override!r}: is not of the form section.key=value; write for example model.num_layers=4"]
    try:
        parsed = parse(value, origin=f"override {override!r}")
    except UserError as error:
        return list(error.problems)
    for section in sections:
        if not isinstance(tree.get(section), dict):
            tree[section] = {}
        tree = tree[section]
    _put(tree, tuple(sections), last, parsed)
    return []
