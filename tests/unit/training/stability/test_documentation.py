"""The YAML of docs/stability.md is what GLM-130B's config takes."""

import re
from pathlib import Path
from typing import get_args

import pytest

from glm130b.config.load import load_config
from glm130b.config.stability import Action, FaultRule, SpikeRule, StabilityConfig
from glm130b.training.schedules import Schedules

ROOT = Path(__file__).parents[4]
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs/stability.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[block.partition(":")[0] for block in BLOCKS])
def test_it_is_a_config_of_the_original_run(block: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: {ROOT / 'configs/glm-130b.yaml'}\n{block}")
    Schedules(load_config(tmp_path / "mine.yaml"))


def test_every_action_and_rule_is_explained() -> None:
    page = (ROOT / "docs/stability.md").read_text()
    rules = [name for name, rule in StabilityConfig() if isinstance(rule, (SpikeRule, FaultRule))]
    missing = [name for name in (*rules, *get_args(Action)) if f"\n| `{name}` |" not in page]
    assert missing == []
