"""Shared by all tests: their order, what they may skip, how hypothesis draws."""

from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

ORDER = ("architecture", "unit", "fuzz", "dist", "numerics", "incidents", "integration", "cluster")
"""Folders of tests, the ones that fail fastest first; any other folder comes last."""

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by folder; skip GPU tests on a machine without a GPU."""
    items.sort(key=_place)
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Reference material that lies beside some checkouts; a test that needs it is skipped elsewhere."""
    folder = ROOT.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip(f"needs the reference material in {folder}, which is not part of the repository")
    return folder


def _place(item: pytest.Item) -> int:
    folder = item.path.relative_to(ROOT / "tests").parts[0]
    return ORDER.index(folder) if folder in ORDER else len(ORDER)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
