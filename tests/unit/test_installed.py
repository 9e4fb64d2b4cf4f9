"""Versions, and the digest of our source."""

from importlib.metadata import PackageNotFoundError, version

import pytest

from glm130b import installed
from glm130b.installed import COMPUTING, Dependency, dependencies, versions


def test_versions_name_what_computes_and_our_source() -> None:
    told = versions()
    assert list(told) == [*COMPUTING, "source"]
    assert told["torch"] == version("torch")
    assert len(told["source"]) == 16
    assert int(told["source"], 16)


def test_what_is_installed_here_is_what_we_ask_for() -> None:
    found = {dependency.name: dependency for dependency in dependencies()}
    assert {"torch", "deepspeed", "megatron-core", "pydantic"} <= found.keys()
    assert "pytest" not in found, "an extra"
    assert [name for name, dependency in found.items() if not dependency.fits] == []


def test_a_version_below_and_a_missing_library_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(name: str) -> str:
        if name == "deepspeed":
            raise PackageNotFoundError(name)
        return {"torch": "2.9.1+cu126", "numpy": "2.1"}[name]

    asked = ["torch>=2.10", "numpy>=2", "deepspeed==0.19.8", 'pytest; extra == "dev"']
    monkeypatch.setattr(installed, "requires", lambda name: asked)
    monkeypatch.setattr(installed, "version", here)
    assert list(dependencies()) == [
        Dependency("torch", "2.9.1+cu126", ">=2.10", fits=False),
        Dependency("numpy", "2.1", ">=2", fits=True),
        Dependency("deepspeed", None, "==0.19.8", fits=False),
    ]
