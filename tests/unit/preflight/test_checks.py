"""The list of checks, and what happens when one of them cannot look."""

from collections.abc import Iterator

import pytest

from glm130b.preflight import checks
from glm130b.preflight.checks import LOOKS, MEASUREMENTS, examine
from glm130b.preflight.finding import Finding, failed, ok
from glm130b.preflight.site import Site


def test_a_check_is_listed_once() -> None:
    functions = [*LOOKS, *MEASUREMENTS]
    assert len({check.__name__ for check in functions}) == len(functions)


def test_a_check_that_cannot_look_is_a_failure_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_gpu(site: Site) -> Iterator[Finding]:
        yield ok("driver", "535")
        raise RuntimeError("CUDA error: uncorrectable ECC error")

    def good(site: Site) -> Iterator[Finding]:
        yield ok("clock", "0.0 s")

    monkeypatch.setattr(checks, "LOOKS", (broken_gpu, good))
    assert list(examine(None, world_size=None, expected_gpus=0, quick=True)) == [
        ok("driver", "535"),
        failed("broken gpu", "CUDA error: uncorrectable ECC error", "mend this machine, or leave it out"),
        ok("clock", "0.0 s"),
    ]
