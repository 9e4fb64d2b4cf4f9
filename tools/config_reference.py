"""Write docs/configuration.md: every key of a config with what it takes, its default and its meaning.

    python tools/config_reference.py            # write it anew
    python tools/config_reference.py --check    # status 1 when it is not what the schema says

The page is made of the schema and the fields' docstrings alone, so it is right when it is fresh; `make check` looks.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from glm130b.config.sections import RunConfig

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "configuration.md"

Schema = dict[str, Any]

RAMP = "Ramp"
RAMPS = "Ramps"
"""Heading of the section that any number may be, told once."""

FURTHER = {
    "model": "model-family.md",
    "data": "data.md",
    "objective": "objectives.md",
    "optimizer": "how-it-trains.md",
    "precision": "how-it-trains.md",
    "parallel": "layouts.md",
    "kernels": "performance.md",
    "checkpoint": "checkpoints.md",
    "stability": "stability.md",
    "supervision": "restarts.md",
    "logging": "monitoring.md",
}
"""Section -> the page that tells more of it."""

OPENING = """\
# Configuration

<!-- Written by tools/config_reference.py from glm130b/config; do not edit it here. -->

A run is one YAML file, and any key of it can be changed behind it on the command line: `batch.global_size=64`,
`batch.ramp=null`, `data.skip_steps='[{from_step: 41200, steps: 200}]'`. `base: other.yaml` starts from a file that
stands next to it: sections are merged key by key, anything else is replaced. `{}` empties a section, and null takes a
source out: `data: {text: {books: {path: data/books, weight: 1}, english: null}, instructions: {}}`. Numbers may be
written `8e-5` and `4_224`.

Unknown, missing and misspelt keys, wrong types and values out of range are told all at once, and so are rules that span
several keys, such as heads that must divide among tensor ranks. `glm130b plan FILE` checks a config; the
whole resolved one is written to `config.yaml` in the run's folder and into every checkpoint.

`NAME` in a key is a name that you choose, `[]` the entries of a list.
"""


class Heading(NamedTuple):
    """One class of the config and the places where it stands, such as two rules of the same kind."""

    definition: str
    paths: list[str]

    @property
    def text(self) -> str:
        return RAMPS if self.definition == RAMP else " and ".join(self.paths)

    @property
    def anchor(self) -> str:
        """What GitHub and MkDocs make of the text alike."""
        return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", self.text).strip().lower())


class Reference:
    """The page about one schema; ``titles`` are those of the other pages, by file."""

    def __init__(self, schema: Schema, titles: Mapping[str, str]) -> None:
        self._root, self._definitions, self._titles = schema, schema["$defs"], titles
        self._headings: dict[str, Heading] = {}
        for path, definition in self._sections(schema, ""):
            self._headings.setdefault(definition, Heading(definition, [])).paths.append(path)
        self._headings[RAMP] = self._headings.pop(RAMP)  # behind all that can be one

    def text(self) -> str:
        """The whole page in Markdown."""
        parts = [OPENING, "## A run\n", _described(self._root), self._table(self._root)]
        for heading in self._headings.values():
            section = self._definitions[heading.definition]
            nested = "." in heading.paths[0] and heading.definition != RAMP
            parts += [f"{'###' if nested else '##'} {heading.text}\n", _described(section), self._table(section)]
            if further := FURTHER.get(heading.paths[0]):
                parts.append(f"More: [{self._titles[further]}]({further}).\n")
        return "\n".join(parts)

    def _sections(self, schema: Schema, prefix: str) -> Iterator[tuple[str, str]]:
        """Every section below one, with its path, in the order of the fields; a section comes before those in it."""
        for key, field in schema["properties"].items():
            for ending, definition in _references(field):
                path = prefix + key + ending
                yield path, definition
                yield from self._sections(self._definitions[definition], f"{path}.")

    def _table(self, section: Schema) -> str:
        rows = ["| key | takes | default | meaning |", "|---|---|---|---|"]
        for key, field in section["properties"].items():
            default = self._default(field) if "default" in field else "**needed**"
            rows.append(f"| `{key}` | {self._takes(field)} | {default} | {_cell(self._meaning(field))} |")
        return "\n".join(rows) + "\n"

    def _takes(self, field: Schema) -> str:
        """The values of a field in plain words."""
        if "$ref" in field:
            link = f"#{self._headings[_name(field)].anchor}"
            return f"number or [ramp]({link})" if _name(field) == RAMP else f"[section]({link})"
        if "anyOf" in field:
            return " or ".join(map(self._takes, field["anyOf"]))
        if choices := field.get("enum") or ([field["const"]] if "const" in field else []):
            return _or([f"`{choice}`" for choice in choices])
        match field["type"]:
            case "array":
                return f"list of {self._takes(field['items'])}".replace("[section]", "[sections]")
            case "object":
                return f"by name, a {self._takes(field['additionalProperties'])}"
            case "boolean":
                return "`true` or `false`"
            case "string":
                return f"text, `{field['pattern']}`" if "pattern" in field else "text"
            case "null":
                return "`null`"
            case kind:
                return f"{'whole number' if kind == 'integer' else kind} {_bounds(field)}".strip()

    def _default(self, field: Schema) -> str:
        default = field["default"]
        if _name(field) == RAMP:
            constant = default["start"] == default["end"]
            return _yaml(default["start"] if constant else default)
        if not isinstance(default, dict):
            return _yaml(default)
        own = {key: it.get("default") for key, it in self._definitions[_name(field)]["properties"].items()}
        return _yaml(changed) if (changed := {k: v for k, v in default.items() if own[k] != v}) else ""

    def _meaning(self, field: Schema) -> str:
        """The field's docstring, or the first paragraph of that of its section."""
        named = [self._definitions[name] for _, name in _references(field) if name != RAMP]
        text: str = next((it["description"] for it in (field, *named) if "description" in it), "")
        return text.split("\n\n")[0]


def _references(field: Schema) -> Iterator[tuple[str, str]]:
    """The sections that a field holds, each with what its path has after the key."""
    for choice in field.get("anyOf", [field]):
        for ending, holder in (("", choice), ("[]", choice.get("items", {})), (".NAME", _values(choice))):
            if "$ref" in holder:
                yield ending, _name(holder)


def _values(field: Schema) -> Schema:
    values = field.get("additionalProperties")
    return values if isinstance(values, dict) else {}


def _name(field: Schema) -> str:
    return str(field.get("$ref", "")).rpartition("/")[2]


def _bounds(field: Schema) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}
    return ", ".join(f"{word} {field[bound]:g}" for bound, word in words.items() if bound in field)


def _or(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]]) if choices[1:] else choices[0]


def _yaml(value: Any) -> str:
    """A default as one would write it in a config."""
    if isinstance(value, float):
        return f"`{value:g}`".replace("e-0", "e-")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"`{value:_}`" if value >= 10_000 else f"`{value}`"
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    return f"`{json.dumps(value)}`".replace('"', "")


def _described(section: Schema) -> str:
    """A class's docstring without its examples."""
    return _markdown(section.get("description", "").partition("\n\n>>>")[0]) + "\n"


def _markdown(text: str) -> str:
    """A docstring's double backticks are Markdown's single ones, and a page that it names is a link."""
    return re.sub(r"\bdocs/([\w-]+)\.md\b", r"[\1](\1.md)", text.replace("``", "`")).strip()


def _cell(text: str) -> str:
    return _markdown(text).replace("\n", " ").replace("|", r"\|")


def titles() -> dict[str, str]:
    """The first heading of every page, by file."""
    return {page.name: page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for page in DOCS.glob("*.md")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or compare it; the exit status."""
    parser = argparse.ArgumentParser(description="Write docs/configuration.md from the schema of the config.")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when the page is stale")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page (docs/configuration.md)")
    words = parser.parse_args(arguments)
    text = Reference(RunConfig.model_json_schema(), titles()).text()
    if not words.check:
        words.output.write_text(text, encoding="utf-8")
    elif not words.output.is_file() or words.output.read_text(encoding="utf-8") != text:
        print(f"config_reference: error: {words.output} is stale; run make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
