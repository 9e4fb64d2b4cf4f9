"""A released checkpoint of the small config, and a run to import it into."""

from pathlib import Path

import pytest

from glm130b.config.sections import RunConfig
from tests.harness.released import write_tokenizer
from tests.harness.synthetic import small_config


@pytest.fixture(scope="session")
def tokenizer_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def config(tmp_path: Path, tokenizer_model: Path) -> RunConfig:
    """A run whose folder is empty."""
    return small_config(folder=str(tmp_path / "runs"), data={"tokenizer": str(tokenizer_model)})  # type: ignore[arg-type]
