"""What is installed here: versions of the libraries that compute, and a digest of our own source."""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

COMPUTING = ("glm130b", "torch", "megatron-core", "deepspeed")


class Dependency(NamedTuple):
    """A library that we ask for."""

    name: str
    found: str | None
    """Its version; None when it is not installed."""
    asked: str
    """The versions that we work with, such as ``>=2.10``; empty for any."""
    fits: bool


@cache
def versions() -> dict[str, str]:
    """Of the libraries that compute, and of this one; ``source`` is a digest of its files, since between releases its
    version says little."""
    package = Path(__file__).parent
    source = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        source.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    return {name: version(name) for name in COMPUTING} | {"source": source.hexdigest()[:16]}


def dependencies() -> Iterator[Dependency]:
    """What our own package says that it needs, against what is here; extras are left out."""
    for requirement in map(Requirement, requires("glm130b") or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _looked_up(requirement)


def _looked_up(requirement: Requirement) -> Dependency:
    asked = str(requirement.specifier)
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Dependency(requirement.name, None, asked, fits=False)
    return Dependency(requirement.name, found, asked, requirement.specifier.contains(found, prereleases=True))
