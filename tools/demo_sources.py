"""Python's own standard library as text: the one large body of prose and code that lies on every machine."""

import ast
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from glm130b.config.errors import UserError

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# Tests, copies of other people's packages, tables of character sets, and the prose that read_topics reads.
LEFT_OUT = {
    "test",
    "tests",
    "idle_test",
    "lib2to3",
    "ensurepip",
    "site-packages",
    "dist-packages",
    "encodings",
    "pydoc_data",
}
FEWEST_MODULES = 100  # a whole standard library has several hundred; a zipped one leaves only a few files


class Module(NamedTuple):
    """The source of one module under its dotted name, ``json.decoder``."""

    name: str
    source: str

    def tree(self) -> ast.Module:
        """Parse the source anew: keeping six hundred trees costs more time and memory than parsing twice."""
        try:
            return ast.parse(self.source)
        except SyntaxError as error:
            raise UserError(
                f"{self.name}: the standard library's source does not parse ({error}); mend the Python"
            ) from error


def standard_library_folder() -> Path:
    """The folder that this Python's standard library is installed in."""
    return Path(sysconfig.get_path("stdlib"))


def read_modules(folder: Path) -> list[Module]:
    """The modules under ``folder`` sorted by path, without those in folders that ``LEFT_OUT`` names.

    Raises UserError when the sources are missing, as in a zipped standard library, or cannot be read.
    """
    modules = [Module(name, _read(folder / path)) for path in _source_paths(folder) if (name := _module_name(path))]
    if len(modules) < FEWEST_MODULES:
        raise UserError(
            f"{folder}: {len(modules)} source files of the standard library, fewer than {FEWEST_MODULES}; "
            "use a Python whose standard library is not zipped and has its .py files"
        )
    return modules


def read_topics(folder: Path) -> dict[str, str]:
    """The language reference that ``help()`` shows, topic by topic; empty where it is not installed. Never executed."""
    path = folder / "pydoc_data" / "topics.py"
    if not path.is_file():
        return {}
    for statement in Module("pydoc_data.topics", _read(path)).tree().body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(statement.value)
            return topics
    return {}


def definitions(body: Iterable[ast.stmt], place: str) -> Iterator[tuple[str, Definition]]:
    """The classes and functions of ``body`` and the methods in them, dotted name first, in the order of the source.

    What stands in a branch of ``if`` or ``try`` is left out: whether it exists depends on the machine.
    """
    for statement in body:
        if isinstance(statement, Definition):
            name = f"{place}.{statement.name}"
            yield name, statement
            if isinstance(statement, ast.ClassDef):
                yield from definitions(statement.body, name)


def _source_paths(folder: Path) -> list[Path]:
    paths = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return sorted((path for path in paths if not LEFT_OUT.intersection(path.parts)), key=Path.as_posix)


def _module_name(path: Path) -> str | None:
    """The dotted name of a file that can be imported; none for this machine's build record (``_sysconfigdata_...``)."""
    parts = path.with_suffix("").parts
    if parts[-1].startswith("_sysconfigdata") or not all(part.isidentifier() for part in parts):
        return None
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _read(path: Path) -> str:
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); mend this file of the standard library") from error
