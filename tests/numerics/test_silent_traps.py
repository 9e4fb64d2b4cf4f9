"""Ways to wrong numbers without an error that are closed by not going there at all.

The others are closed where they are met: each has its test beside that part.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CLOSED = {
    # DeepSpeed's own checkpoints: one that is missing loads as (None, None) with a warning, and `latest` points at a
    # folder that is not yet whole. Converted to the universal form, layers of equal local names replace each other.
    "load_checkpoint",
    "save_checkpoint",
    "load_universal",
    "ds_to_universal",
}


def ways_taken(tree: ast.AST) -> Iterator[str]:
    """Names, attributes, keys and imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "").split(".")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_nobody_goes_there(root: Path) -> None:
    for file in (root / "glm130b").rglob("*.py"):
        assert not CLOSED & set(ways_taken(ast.parse(file.read_text(encoding="utf-8")))), file


@pytest.mark.parametrize(
    "text",
    [
        "engine.load_checkpoint('here')",
        "{'checkpoint': {'load_universal': True}}",
        "from deepspeed.checkpoint import ds_to_universal",
        "from deepspeed.checkpoint.ds_to_universal import main",
        "import deepspeed.checkpoint.ds_to_universal",
    ],
)
def test_it_would_be_seen(text: str) -> None:
    assert CLOSED & set(ways_taken(ast.parse(text)))
