"""Libraries: the versions that we work with, and whether they can be imported on this machine."""

import sys
from collections.abc import Iterator

from glm130b.installed import dependencies, versions
from glm130b.preflight.finding import Finding, failed, ok
from glm130b.preflight.program import answer
from glm130b.preflight.site import Site

_SECONDS = 120
_MEND = "run `make setup`, or install the versions of constraints.txt"


def library_versions(site: Site) -> Iterator[Finding]:
    """As our own package asks for them. A mistake there ends a run only when something is used, so here it fails."""
    del site
    strangers = [dependency for dependency in dependencies() if not dependency.fits]
    for name, found, asked, _ in strangers:
        yield failed("libraries", f"{name} {found or 'is not installed'}, we need {name}{asked}", _MEND)
    if not strangers:
        yield ok("libraries", ", ".join(f"{name} {version}" for name, version in versions().items()))


def library_imports(site: Site) -> Iterator[Finding]:
    """torch, Megatron-core and DeepSpeed together; in a process of its own, since a broken one may end it."""
    del site
    command = [sys.executable, "-c", "import glm130b.parallel.zero"]
    try:
        done = answer(command, seconds=_SECONDS)
    except TimeoutError:
        yield failed("imports", f"not done after {_SECONDS} s", "look at the file system that Python is installed on")
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        yield failed("imports", last, _MEND)
    else:
        yield ok("imports", "torch, Megatron-core and DeepSpeed")
