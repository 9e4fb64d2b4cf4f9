"""A config's tree of values as one row of keys."""

from collections.abc import Iterator, Mapping
from typing import Any


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its whole key; an empty section is a value.

    >>> dict(flat({"model": {"num_layers": 2}, "data": {"instructions": {}}}))
    {'model.num_layers': 2, 'data.instructions': {}}
    """
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
