"""From plain data to a ``RunConfig``, or to every problem at once: the key, the value, the rule and the mend."""

import difflib
import functools
import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from glm130b.config.errors import UserError
from glm130b.config.ramp import Ramp
from glm130b.config.section import Section
from glm130b.config.sections import RunConfig

_RULES = {
    "int": "is not a whole number; write {example}",
    "float": "is not a number; write for example 0.5",
    "finite_number": "is not finite; write for example 0.5",
    "string_type": "is not text; put it in quotes if it is meant as a name",
    "bool": "is neither true nor false; write one of them",
    "tuple_type": "is not a list; write it as [..., ...]",
    "dict_type": "is not a section; write one `name: {{...}}` line for each entry under the key",
    "literal_error": "is not a choice; write {expected}",
    "greater_than": "is too small; write a number above {gt:g}",
    "greater_than_equal": "is too small; write {ge:g} or more",
    "less_than": "is too large; write a number below {lt:g}",
    "less_than_equal": "is too large; write {le:g} or less",
    "string_too_short": "is no name; write letters, digits, '.', '_' or '-', a letter or digit first",
    "string_pattern_mismatch": "is no name; write letters, digits, '.', '_' or '-', a letter or digit first",
}


_LARGEST = 2**63 - 1


def validated(tree: dict[str, Any]) -> RunConfig:
    """The config that ``tree`` (plain YAML or JSON data) describes.

    Raises ``UserError`` with one problem for each unknown or missing key and each value of a wrong type or out of its
    range.
    """
    if found := [
        f"{key}: {_shown(number)} does not fit 64 bits; write {_LARGEST} or less" for key, number in _oversized(tree)
    ]:
        raise UserError(found)
    try:
        # JSON mode is as strict about types, and builds sections from plain data.
        return RunConfig.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        details = error.errors(include_url=False)
    unknown = {detail["loc"]: _nearest(detail["loc"]) for detail in details if detail["type"] == "extra_forbidden"}
    problems = []
    for detail in details:
        key = ".".join(str(part) for part in detail["loc"])
        if detail["loc"] in unknown:
            problems.append(f"{key}: unknown key; {_way_to(detail['loc'], unknown[detail['loc']])}")
        elif detail["type"] != "missing":
            problems.append(f"{key}: {_shown(detail['input'])} {_rule(detail)}")
        elif key not in unknown.values():  # the misspelt key is reported already
            problems.append(f"{key}: missing; add {_meaning(detail['loc'])}")
    raise UserError(problems)


def _oversized(tree: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Whole numbers that arithmetic on samples and sizes could not take, with their keys."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        yield from _oversized(value, f"{key}.{name}" if key else str(name))
    if isinstance(tree, int) and abs(tree) > _LARGEST:
        yield key, tree


@functools.cache
def _fields() -> dict[str, FieldInfo]:
    """Every key of a config with its field; ``*`` stands for a name that the user chooses: ``data.text.*.path``."""

    def walk(section: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
        for name, field in section.model_fields.items():
            yield prefix + name, field
            if inner := _section_of(field):
                named = "*." if "dict" in str(field.annotation) else ""
                yield from walk(inner, f"{prefix}{name}.{named}")

    return dict(walk(RunConfig, ""))


def _section_of(field: FieldInfo) -> type[Section] | None:
    """The section class in a field's annotation: bare, optional or as the values of a dict."""
    candidates = (field.annotation, *get_args(field.annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Section)), None)


def _pattern(location: tuple[int | str, ...]) -> str:
    """``("data", "text", "english", "path")`` -> ``data.text.*.path``; an index in a list is left out."""
    pattern = ""
    for part in location:
        if isinstance(part, int):
            continue
        exact = f"{pattern}.{part}".lstrip(".")
        entries = any(key.startswith(f"{pattern}.*.") for key in _fields())
        pattern = f"{pattern}.*" if entries else exact
    return pattern


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """The right keys of the section in which ``location`` lies."""
    section = _pattern(location[:-1])
    keys = [key.rpartition(".") for key in _fields()]
    return [name for parent, _, name in keys if parent == section]


def _nearest(location: tuple[int | str, ...]) -> str | None:
    """The full dotted key in the same section that looks most like the last part of ``location``, or shortens to it:
    ``lr`` to ``learning_rate``, ``tp`` to ``tensor``, ``heads`` to ``num_attention_heads``."""
    word = str(location[-1])
    siblings = _siblings(location)
    initials = [name for name in siblings if word in ("".join(part[0] for part in name.split("_")), name[0] + "p")]
    holding = [name for name in siblings if word in name.split("_")]
    close = holding or difflib.get_close_matches(word, siblings, n=1) or initials
    return ".".join([*map(str, location[:-1]), close[0]]) if close else None


def _way_to(location: tuple[int | str, ...], nearest: str | None) -> str:
    elsewhere = [key for key in _fields() if key.rpartition(".")[2] == location[-1]]
    if elsewhere:
        return f"write it as {' or '.join(elsewhere).replace('*', '<name>')}"
    if nearest:
        return f"the nearest is {nearest}"
    return f"the keys there are {', '.join(_siblings(location))}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _rule(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in ("model_type", "model_attributes_type"):
        return _section_rule(detail["loc"])
    if kind.startswith("int_") and isinstance(value, float) and value.is_integer():
        return f"is not a whole number; write {int(value)}"
    template = _RULES.get(kind) or _RULES.get(kind.split("_")[0])
    if not template:
        return f"is refused: {detail['msg']}"
    key = _pattern(detail["loc"])
    example = "rows, for example 100_000" if key.endswith("_samples") else "for example 4"
    or_null = ", or null" * (type(None) in get_args(_fields()[key].annotation))
    return template.format(**context, example=example) + or_null


def _section_rule(location: tuple[int | str, ...]) -> str:
    section = _section_of(_fields().get(_pattern(location)) or _fields()[_pattern(location).removesuffix(".*")])
    if section is Ramp:
        return "is not a number; write one, or {start: ..., end: ..., from_samples: ..., over_samples: ...}"
    return f"is not a section; write {', '.join(section.model_fields if section else ())} under the key"


def _meaning(location: tuple[int | str, ...]) -> str:
    """What to add for a missing key: its values where they are few, and what it is."""
    field = _fields()[_pattern(location)]
    choices = [repr(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    section = _section_of(field)
    what = " or ".join(choices) or ("the section" if section and section is not Ramp else "a value")
    meaning = field.description or (section.__doc__ if section and section is not Ramp else None)
    first_line = (meaning or "").strip().split("\n")[0].rstrip(".").replace("``", "`")
    return f"{what} ({first_line})" if first_line else what
