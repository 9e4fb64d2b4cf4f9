"""The reference says of each kind of field what a user has to know, and tells a stale page from a fresh one."""

from pathlib import Path
from typing import Literal

import config_reference
import pytest
from config_reference import Reference
from pydantic import Field

from glm130b.config.ramp import Ramp
from glm130b.config.section import Section
from glm130b.config.sections import RunConfig


class Rule(Section):
    """When it rains.

    And more of it.
    """

    after: int = Field(default=100_000, ge=1, le=200_000)
    until: float = Field(default=1e-8, gt=0, lt=1)
    actions: tuple[Literal["wait", "go"], ...] = ("wait",)


class Source(Section):
    """A place."""

    path: str
    """Where; ``here`` | there, as docs/data.md says."""
    weight: Ramp


class Whole(Section):
    """All of it."""

    first: Rule = Rule()
    second: Rule = Rule(after=3)
    """Another time."""
    sources: dict[str, Source]
    listed: tuple[Source, ...] = ()
    share: Ramp = Ramp(start=0.5, end=0.5)
    size: Literal["all"] | int | None = None
    on: bool = False


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return Reference(Whole.model_json_schema(), titles={}).text().splitlines()


@pytest.mark.parametrize(
    "line",
    [
        "| `first` | [section](#first-and-second) |  | When it rains. |",
        "| `second` | [section](#first-and-second) | `{after: 3}` | Another time. |",
        "| `sources` | by name, a [section](#sourcesname-and-listed) | **needed** | A place. |",
        "| `listed` | list of [sections](#sourcesname-and-listed) | `[]` | A place. |",
        "| `share` | number or [ramp](#ramps) | `0.5` |  |",
        "| `size` | `all` or whole number or `null` | `null` |  |",
        "| `on` | `true` or `false` | `false` |  |",
        "## first and second",
        "| `after` | whole number from 1, up to 200000 | `100_000` |  |",
        "| `until` | number above 0, below 1 | `1e-8` |  |",
        "| `actions` | list of `wait` or `go` | `[wait]` |  |",
        "### sources.NAME and listed[]",
        r"| `path` | text | **needed** | Where; `here` \| there, as [data](data.md) says. |",
        "## Ramps",
    ],
)
def test_a_line_of_each_kind(line: str, lines: list[str]) -> None:
    assert line in lines


def test_every_key_has_a_row() -> None:
    schema = RunConfig.model_json_schema()
    text = Reference(schema, config_reference.titles()).text()
    for section in (schema, *schema["$defs"].values()):
        assert [key for key in section["properties"] if f"\n| `{key}` | " not in text] == []


def test_it_is_written_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    assert config_reference.main(["--check", "--output", str(page)]) == 1
    assert config_reference.main(["--output", str(page)]) == 0
    assert config_reference.main(["--check", "--output", str(page)]) == 0
    page.write_text(page.read_text().replace("1234", "4321"))
    assert config_reference.main(["--check", "--output", str(page)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("page.md is stale; run make docs")
