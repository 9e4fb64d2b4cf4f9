"""Random numbers that depend on what they are for and on nothing else."""

import hashlib
import json

import numpy as np


def digest(*purpose: int | str) -> int:
    """128 bits that are a pure function of the purpose; different purposes give unrelated numbers."""
    return int.from_bytes(hashlib.blake2b(json.dumps(purpose).encode(), digest_size=16).digest(), "little")


def generator(*purpose: int | str) -> np.random.Generator:
    """A counter-based generator keyed by the purpose, the same in every process."""
    return np.random.Generator(np.random.Philox(key=digest(*purpose)))
