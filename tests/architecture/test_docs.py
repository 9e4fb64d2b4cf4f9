"""The documentation is built without a warning, is fresh, and names nothing that is not there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from glm130b.cli import COMMANDS
from tests.harness.documentation import pages

LINES = 120
GENERATED = "configuration.md"


def test_the_site_is_built_without_a_warning(root: Path, tmp_path: Path) -> None:
    """Warnings are errors: links and anchors that lead nowhere, pages that the navigation leaves out.

    Not with ``--quiet``, under which MkDocs does not count them.
    """
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    built = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "index.html").is_file()


def test_the_configuration_reference_is_fresh(root: Path) -> None:
    command = [sys.executable, root / "tools" / "config_reference.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr


def test_pages_are_short(root: Path) -> None:
    lines = {page.name: len(page.read_text().splitlines()) for page in (root / "docs").glob("*.md")}
    assert {name: count for name, count in lines.items() if count > LINES and name != GENERATED} == {}


def test_files_outside_docs_are_named_and_not_linked(root: Path) -> None:
    """A link would lead nowhere on the site; a name in backticks is a path from the root everywhere."""
    links = {page.name: re.findall(r"\]\((\.\./[^)]*)\)", page.read_text()) for page in (root / "docs").glob("*.md")}
    assert {page: found for page, found in links.items() if found} == {}


def test_paths_that_pages_name_exist(root: Path) -> None:
    folders = "benchmarks|configs|docs|glm130b|launch|tests|tools"
    named = {
        (page.name, path)
        for page in pages(root)
        for path in re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]*\w", page.read_text())
    }
    assert len(named) > 50
    written_by_readers = {("index.md", "configs/mine.yaml")}
    assert {(page, path) for page, path in named if not (root / path).exists()} == written_by_readers


def test_targets_and_commands_that_pages_name_exist(root: Path) -> None:
    text = "\n".join(page.read_text() for page in pages(root))
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.M))
    make = set(re.findall(r"(?:^\s*|`)make ([a-z-]+)", text, re.M))
    assert {"train", "test", "docs"} <= make <= targets
    assert set(re.findall(r"(?:^\s*|`)glm130b ([a-z-]+)", text, re.M)) <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted(name for name, command in COMMANDS.items() if command.summary))
def test_every_command_is_documented(name: str, root: Path) -> None:
    shown = "\n".join(page.read_text() for page in (root / "docs").glob("*.md"))
    assert re.search(rf"^ +glm130b {name} ", shown, re.M)


def test_links_of_the_readme_lead_somewhere(root: Path) -> None:
    for page in (root / "README.md", root / "CONTRIBUTING.md"):
        for path, anchor in re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]*))?\)", page.read_text()):
            assert (root / path).is_file(), f"{page.name}: {path}"
            headings = re.findall(r"^#+ (.*)$", (root / path).read_text(), re.M)
            assert not anchor or anchor in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}
