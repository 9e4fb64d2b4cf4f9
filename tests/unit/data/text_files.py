"""Text that is on every machine with Python, and how it is written down."""

import inspect
import json
import textwrap
import types
from pathlib import Path
from typing import Any

PIECES = 600
"""Pieces of the small tokenizer."""


def docstrings() -> list[tuple[str, str]]:
    """(name, docstring) of functions of the standard library."""
    modules: list[types.ModuleType] = [inspect, json, textwrap, types]
    found = {
        f"{module.__name__}.{name}": inspect.getdoc(member) or ""
        for module in modules
        for name, member in inspect.getmembers(module, inspect.isfunction)
    }
    return [(name, text) for name, text in found.items() if text]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
