"""Random numbers that depend on what they are for and on nothing else."""

import hashlib
import json

import numpy as np


def digest(*purpose: int | str, num_bytes: int = 16) -> int:
    """Bits, 64 bytes at most, that are a pure function of the purpose; different purposes give unrelated numbers."""
    return int.from_bytes(hashlib.blake2b(json.dumps(purpose).encode(), digest_size=num_bytes).digest(), "little")


def generator(*purpose: int | str) -> np.random.Generator:
    """A counter-based generator keyed by the purpose, the same in every process."""
    return np.random.Generator(np.random.Philox(key=digest(*purpose)))
