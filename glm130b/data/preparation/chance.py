"""Chance that depends on what it is for and on nothing else: not on the order of files, nor on the worker."""

import hashlib
import json
from typing import Any


def chance(*purpose: int | str) -> float:
    """A number from 0 up to, but without, 1; different purposes give unrelated ones."""
    hashed = hashlib.blake2b(json.dumps(purpose).encode(), digest_size=8).digest()
    return (int.from_bytes(hashed, "big") >> 11) / 2**53


def identity(record: dict[str, Any]) -> str:
    """32 hex digits that equal records share, wherever they stand and however their fields are ordered."""
    return hashlib.blake2b(json.dumps(record, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
