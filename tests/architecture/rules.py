"""The rules that keep the house in order, as functions from a source file to what is wrong with it.

An import contract (pyproject.toml) guards the layers; these guard what it cannot see: which file is the door to a
library, who patches one, who reads the environment, how long things are and whether they are annotated.
"""

import ast
from collections.abc import Callable, Iterator
from typing import NamedTuple

FILE_LINES = 400
FUNCTION_LINES = 60
INIT_LINES = 40

DOORS = {
    "deepspeed": ("parallel/zero.py", "parallel/cpu.py"),
    "datatrove": ("data/cleaning/stages.py",),
    "jinja2": ("data/preparation/sandbox.py",),
    "megatron.core.parallel_state": ("parallel/topology.py",),
    "megatron.core.pipeline_parallel": ("parallel/pipeline.py", "parallel/cpu.py"),
    "choreographer": ("report/pictures.py",),
    "kaleido": ("report/pictures.py",),
    "plotly": ("report/plotly_script.py",),
    "pyarrow": ("data/reading/parquet.py",),
    "sentencepiece": ("data/tokenizers/sentence_pieces.py", "data/tokenizers/training.py"),
    "tokenizers": ("data/tokenizers/hugging_face.py",),
    "wandb": ("training/sinks/weights_and_biases.py", "report/dashboard.py"),
    "wandb_workspaces": ("report/dashboard.py",),
    "tensorboard": ("training/sinks/tensorboard.py",),
    "zstandard": ("data/reading/streams.py",),
}
"""A library, or a part of one, and the only files of glm130b/ that may import it."""

PATCHES_LIBRARIES = "parallel/cpu.py"
READS_ENVIRONMENT = "environment.py"


class Source(NamedTuple):
    """A Python file: its path inside the folder that the rule is about, and its text."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


Rule = Callable[[Source], Iterator[str]]


def one_door_per_library(source: Source) -> Iterator[str]:
    """A library behind a door is imported in its door only, whole or in parts, also inside a function."""
    for line, module in _imports(source.tree):
        for library, doors in DOORS.items():
            if f"{module}.".startswith(f"{library}.") and source.path not in doors:
                yield f"line {line}: imports {module}; only {' and '.join(doors)} may"


def no_patches(source: Source) -> Iterator[str]:
    """Nobody assigns to an attribute of an imported module."""
    if source.path == PATCHES_LIBRARIES:
        return
    modules = {name.partition(".")[0] for name in _module_names(source.tree)}
    for node in ast.walk(source.tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Attribute) and _root(target) in modules:
                yield f"line {target.lineno}: patches {ast.unparse(target)}; only {PATCHES_LIBRARIES} may"


def no_environment(source: Source) -> Iterator[str]:
    """Nobody but environment.py reads or sets an environment variable: what a run is stands in its config."""
    if source.path == READS_ENVIRONMENT:
        return
    forbidden = {"environ", "environb", "getenv", "getenvb", "putenv"}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in forbidden and _root(node) == "os":
            yield f"line {node.lineno}: {ast.unparse(node)}; only {READS_ENVIRONMENT} reads the environment"
        elif isinstance(node, ast.ImportFrom) and node.module == "os" and forbidden & {a.name for a in node.names}:
            yield f"line {node.lineno}: imports from os; only {READS_ENVIRONMENT} reads the environment"


def no_global(source: Source) -> Iterator[str]:
    """State lives in objects that are handed on."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global {', '.join(node.names)}"


def short_files(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    budget = INIT_LINES if source.path.endswith("__init__.py") else FILE_LINES
    if lines > budget:
        yield f"{lines} lines, the budget is {budget}"


def short_functions(source: Source) -> Iterator[str]:
    for function in _functions(source.tree):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES:
            yield f"line {function.lineno}: {function.name} has {lines} lines, the budget is {FUNCTION_LINES}"


def annotated_functions(source: Source) -> Iterator[str]:
    """Every argument but self and cls, and every result, has a type."""
    for function in _functions(source.tree):
        arguments = function.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        rest = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
        bare = [a.arg for a in [*named, *rest] if a.annotation is None and a.arg not in ("self", "cls")]
        if function.returns is None:
            bare.append("return")
        if bare:
            yield f"line {function.lineno}: {function.name} does not annotate {', '.join(bare)}"


PRODUCT_RULES: tuple[Rule, ...] = (one_door_per_library, no_patches, no_environment)
"""For glm130b/."""

BUDGETS: tuple[Rule, ...] = (no_global, short_files, short_functions, annotated_functions)
"""For every Python file of the repository."""


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every imported name in full: ``from a.b import c`` is ``a.b.c``, because c may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((node.lineno, a.value) for a in node.args if isinstance(a, ast.Constant) and a.value)


def _module_names(tree: ast.Module) -> Iterator[str]:
    """The names under which a file knows imported modules, as far as their spelling tells: classes are capitalised."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names if not alias.name[0].isupper())


def _root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
