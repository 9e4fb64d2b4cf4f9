"""The repository keeps its own rules."""

import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.architecture.rules import BUDGETS, DOORS, PATCHES_LIBRARIES, PRODUCT_RULES, READS_ENVIRONMENT, Rule, Source

FOLDERS = ("glm130b", "tools", "tests", "benchmarks", "launch")


def broken(files: Iterator[Path], rules: tuple[Rule, ...], folder: Path) -> list[str]:
    """What the rules say about the files, which they know by their paths inside ``folder``."""
    return [
        f"{path}: {problem}"
        for file in sorted(files)
        for path in [file.relative_to(folder).as_posix()]
        for rule in rules
        for problem in rule(Source(path, file.read_text()))
    ]


def python_files(root: Path) -> Iterator[Path]:
    """All of them, with the launch script that is Python and shell at once."""
    yield root / "launch" / "pretrain.sh"
    for folder in FOLDERS:
        yield from (root / folder).rglob("*.py")


def test_doors_patches_and_environment(root: Path) -> None:
    assert broken((root / "glm130b").rglob("*.py"), PRODUCT_RULES, root / "glm130b") == []


def test_budgets(root: Path) -> None:
    assert broken(python_files(root), BUDGETS, root) == []


@pytest.mark.parametrize(
    "door", sorted({PATCHES_LIBRARIES, READS_ENVIRONMENT, *(d for ds in DOORS.values() for d in ds)})
)
def test_every_allowance_is_for_a_file_that_exists(root: Path, door: str) -> None:
    assert (root / "glm130b" / door).is_file()


def test_every_folder_of_the_package_says_what_it_is(root: Path) -> None:
    folders = {file.parent for file in (root / "glm130b").rglob("*.py")}
    silent = [f for f in folders if not (f / "__init__.py").is_file() or not (f / "__init__.py").read_text().strip()]
    assert silent == []


def test_pytest_looks_into_every_folder_of_tests(root: Path, pytestconfig: pytest.Config) -> None:
    """Its own list of folders to pass over has one named as ours."""
    folders = {file.parent for file in (root / "tests").rglob("test_*.py")}
    passed_over = pytestconfig.getini("norecursedirs")
    assert [folder for folder in folders for name in passed_over if fnmatch(folder.name, name)] == []


def test_the_linter_looks_into_every_folder(root: Path) -> None:
    """So has its own."""
    listed = subprocess.run(["ruff", "check", "--show-files", root], capture_output=True, text=True, check=True)
    assert {str(file) for file in python_files(root) if file.suffix == ".py"} <= set(listed.stdout.splitlines())
