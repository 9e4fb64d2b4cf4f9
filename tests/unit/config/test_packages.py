"""A package that a config asks for is looked for before the run."""

import pytest

from glm130b.config.packages import missing_packages
from tests.harness.synthetic import small_config


def test_a_missing_package_is_named_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = small_config(logging={"wandb": "disabled", "tensorboard": True})
    assert missing_packages(asking) == []
    monkeypatch.setattr("glm130b.config.packages.find_spec", lambda name: None)
    (problem,) = missing_packages(asking)
    assert problem.startswith("logging.tensorboard: the package tensorboard is not installed; run `pip install")
    assert missing_packages(small_config()) == []
