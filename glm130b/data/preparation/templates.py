"""Prompt templates in PromptSource's YAML (Bach et al. 2022): Jinja that writes ``prompt ||| answer`` from a record."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from glm130b.config.errors import UserError
from glm130b.data.preparation.chance import chance, identity
from glm130b.data.preparation.rendering import Pair, PairsOf
from glm130b.data.preparation.sandbox import ForbiddenTemplate, RenderTemplate, Sandbox

SEPARATOR = "|||"
# Stands for the separator where it is data. Half of a surrogate pair is in no text that was read from a file.
_SEPARATOR_IN_DATA = "\ud83d" * len(SEPARATOR)


@dataclass(frozen=True)
class Template:
    """One way to ask."""

    name: str
    jinja: str
    """Writes prompt and answer with ``|||`` between them, or nothing for a record that it does not suit."""
    answer_choices: str | None
    """Jinja that writes the possible answers with ``|||`` between them; a list, ``answer_choices``, for ``jinja``."""
    origin: str = field(repr=False, compare=False)
    """File, for errors."""


@dataclass(frozen=True)
class TemplatedPairs:
    """Records rendered by one template each, drawn by the record, or by all of them."""

    templates: tuple[Template, ...]
    all_templates: bool = False

    def for_shard(self, is_held_out: Callable[[str], bool]) -> PairsOf:
        compiled = [_Compiled(template) for template in self.templates]

        def pairs_of(record: dict[str, Any]) -> list[Pair]:
            key = identity(record)
            chosen = compiled if self.all_templates else [compiled[int(chance("template", key) * len(compiled))]]
            protected = {name: _protected(value) for name, value in record.items()}
            pairs = [pair for template in chosen for pair in template.pairs(protected, key)]
            return [pair._replace(side=pairs[0].prompt) for pair in pairs]

        return pairs_of


def load_templates(path: Path) -> tuple[Template, ...]:
    """The templates of a file, sorted by name. Raises UserError with everything that is wrong in it."""
    try:
        tree = yaml.load(path.read_text("utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"{path}: cannot be read ({reason}); name a templates.yaml of PromptSource") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}; mend the YAML there") from None
    except RecursionError:
        raise UserError(f"{path}: the YAML there is nested too deep; flatten it") from None
    entries = tree.get("templates") if isinstance(tree, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{path}: has no templates; write them as PromptSource does, under `templates:`")
    problems: list[str] = []
    templates = []
    for key, entry in entries.items():
        try:
            templates.append(_template(entry, key=str(key), origin=str(path)))
        except UserError as error:
            problems += error.problems
    names = [template.name for template in templates]
    problems += [
        f"{path}: the name {name!r} is given to {names.count(name)} templates; name each apart"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if problems:
        raise UserError(problems)
    return tuple(sorted(templates, key=lambda template: template.name))


class _Loader(yaml.SafeLoader):
    """Plain data, and PromptSource's two tags as mappings."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, ArithmeticError):  # PyYAML trusts a tag, as in `!!int ''`
            problem = f"{node.tag} does not fit this value"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, _mapping)


def _template(entry: Any, *, key: str, origin: str) -> Template:
    if not isinstance(entry, dict) or not isinstance(entry.get("jinja"), str) or SEPARATOR not in entry["jinja"]:
        raise UserError(
            f"{origin}: template {key} has no jinja with {SEPARATOR}; write prompt {SEPARATOR} answer there"
        )
    choices = entry.get("answer_choices")
    if isinstance(choices, list):  # as in PromptSource's first files
        choices = f" {SEPARATOR} ".join(map(str, choices))
    template = Template(str(entry.get("name") or key), entry["jinja"], choices, origin)
    _Compiled(template)
    return template


class _Compiled:
    """A template in a sandbox of its own, which does not pickle."""

    def __init__(self, template: Template) -> None:
        """Raises UserError for what is no Jinja or reaches for what it may not."""
        self._template = template
        sandbox = Sandbox()
        self._choices: RenderTemplate | None = None
        fields: frozenset[str] = frozenset()
        try:
            if template.answer_choices is not None:
                self._choices, fields = sandbox.compiled(template.answer_choices)
            self._render, variables = sandbox.compiled(template.jinja)
        except (ForbiddenTemplate, ValueError) as error:
            raise self._refused(error) from None
        self._fields = sorted((fields | variables) - {"answer_choices"})

    def pairs(self, record: dict[str, Any], key: str) -> list[Pair]:
        """The pair of a record, or none where the template writes no prompt or no answer for it.

        Raises ValueError with what is wrong with the record, and UserError with what is wrong with the template.
        """
        name = self._template.name
        if missing := [field for field in self._fields if field not in record]:
            raise ValueError(f"has no {' and no '.join(missing)}, which the template {name!r} reads; write it")
        if "answer_choices" in record:
            raise ValueError("has a field answer_choices, which templates keep for themselves; rename it")
        choices = None
        try:
            if self._choices:
                choices = [choice.strip() for choice in self._choices(record, f"{key} {name}").split(SEPARATOR)]
            written = self._render({**record, "answer_choices": choices}, f"{key} {name}")
        except ForbiddenTemplate as error:
            raise self._refused(error) from None
        except ValueError as error:
            raise ValueError(f"the template {name!r} {error}") from None
        parts = [part.strip().replace(_SEPARATOR_IN_DATA, SEPARATOR) for part in written.split(SEPARATOR)]
        if len(parts) > 2:
            raise ValueError(f"the template {name!r} writes {SEPARATOR} {len(parts) - 1} times; write it once")
        if len(parts) < 2 or not all(parts):
            return []
        prompt, answer = parts
        return [Pair(prompt, answer, side=prompt, form=name)]

    def _refused(self, error: Exception) -> UserError:
        return UserError(f"{self._template.origin}: the template {self._template.name!r} {error}; mend or remove it")


def _protected(value: Any) -> Any:
    """The value with every ``|||`` in its texts out of the way."""
    if isinstance(value, str):
        return value.replace(SEPARATOR, _SEPARATOR_IN_DATA)
    if isinstance(value, list):
        return [_protected(item) for item in value]
    if isinstance(value, dict):
        return {name: _protected(item) for name, item in value.items()}
    return value
