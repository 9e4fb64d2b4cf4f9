"""Random data for YAML and JSON, and trees that are right but for a few places."""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

HUGE = (2**31, 2**63, 2**64, 10**18, 10**30, -(10**18), 10**400)
ODD_FLOATS = (1e-320, 1e308, -0.0, float("inf"), float("-inf"), float("nan"), 0.1)
ODD_TEXTS = (
    "",
    " ",
    "..",
    "/",
    "/dev/null",
    "a\x00b",
    "\ud800",
    "\u202e",
    "𝔘",
    "x" * 5000,
    "a\nb",
    "{}",
    "%s{0.__class__}",
    "$(touch canary)",
    "null",
    "8e-5",
    "__class__",
    "start",
)

SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-4, 40)
    | st.sampled_from(HUGE)
    | st.floats()
    | st.sampled_from(ODD_FLOATS)
    | st.text(max_size=8)
    | st.sampled_from(ODD_TEXTS)
)

TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


SYNTAX = st.lists(
    st.sampled_from(
        (
            *"[]{},:&*!|>?-#%@`\"'\n\t ",
            "&a ",
            "*a",
            "<<: *a",
            "!!int ",
            "!!float ",
            "!!bool ",
            "!!null ",
            "!!binary ",
            "!!set ",
            "!!str ",
            "!!python/object/apply:os.system ['touch canary']",
            "!!python/name:os.system",
            "model:\n  ",
            "data: ",
            "seed: ",
            "base: ",
            "---\n",
            "...\n",
            "- ",
            "\n  ",
            "1e5",
            "0x10",
            "010",
            "9" * 5000,
            "2026-01-01",
            '"\\ud800"',
            '"\\0"',
            "\ufeff",
            "\x85",
        )
    )
    | st.text(max_size=4),
    max_size=20,
).map("".join)
"""Pieces of YAML in any order."""


@st.composite
def mutated(draw: st.DrawFn, tree: Any, values: st.SearchStrategy[Any] = TREES) -> Any:
    """``tree`` with one to four places removed, renamed, doubled or given another value."""
    changed = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(changed))
        if not places:
            break
        parent, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(("set", "set", "set", "remove", "rename", "copy"))):
            case "set":
                parent[key] = draw(values)
            case "remove":
                del parent[key]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.text(max_size=8) | st.just(f"{key}s"))] = parent.pop(key)
            case _:
                other, place = draw(st.sampled_from(places))
                if place in other if isinstance(other, dict) else place < len(other):
                    other[place] = copy.deepcopy(parent[key])
    return changed


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes of a file cut short, made longer, or with a few of them changed."""
    data = bytearray(whole)
    match draw(st.sampled_from(("cut", "cut", "longer", "flip", "flip", "stretch"))):
        case "cut":
            del data[draw(st.integers(0, max(len(data) - 1, 0))) :]
        case "longer":
            data += draw(st.binary(min_size=1, max_size=40))
        case "flip":
            for place in draw(st.lists(st.integers(0, max(len(data) - 1, 0)), min_size=1, max_size=4)):
                if data:
                    data[place] ^= 1 << draw(st.integers(0, 7))
        case _:
            place = draw(st.integers(0, len(data)))
            data[place : place + 8] = draw(st.binary(min_size=8, max_size=8))
    return bytes(data)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) of a tree."""
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items:
        yield tree, key
        yield from _places(value)
