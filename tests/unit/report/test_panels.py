"""Every panel shows something that a run writes."""

import re

import pytest

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel.topology import disconnect
from glm130b.report.panels import SECTIONS
from glm130b.training.progress import Progress
from tests.harness.pool import run_distributed
from tests.harness.synthetic import small_config
from tests.harness.training import live_run

ON_A_GPU = {"train/memory_allocated_gib", "train/memory_reserved_gib", "train/mfu", "train/hfu"}
OBJECTIVES = ("mask", "smask", "gmask", "instruction")
PARTS = {f"train/gradient_norm/{part}" for part in ("positions", "projection")}
"""Kinds of parameters that a GLM with rotary positions and a tied embedding lacks."""
COUNTED_FROM_THE_CONFIG = {f"train/tokens/{name}" for name in (*OBJECTIVES, "text.english", "instructions.english")}
LOSSES = {f"{kind}/loss/{name}" for kind in ("train", "validation") for name in (*OBJECTIVES, "text.english")}


def names_of_a_record(launch: Launch, config: RunConfig) -> set[str]:
    """Of the first step, which has everything."""
    run = live_run(config, launch)
    _, record = run.stepper.step(Progress())
    disconnect()
    return {f"train/{name}" for name in record.values}


@pytest.fixture(scope="module")
def written() -> set[str]:
    """Names that some run writes."""
    config = small_config(logging={"wandb": "disabled", "activations": True})
    names = run_distributed(names_of_a_record, 1, config)[0]
    return names | ON_A_GPU | PARTS | COUNTED_FROM_THE_CONFIG | LOSSES | {"validation/loss", "events/spike"}


def test_every_curve_is_written_by_a_run(written: set[str]) -> None:
    for panel in (panel for section in SECTIONS for panel in section.panels):
        assert set(panel.names) <= written, panel.title
        assert bool(panel.names) != bool(panel.pattern), panel.title
        if panel.pattern:
            assert any(re.search(panel.pattern, name) for name in written), panel.title


def test_the_panels_miss_nothing_of_weight(written: set[str]) -> None:
    panels = [panel for section in SECTIONS for panel in section.panels]
    shown = {name for panel in panels for name in panel.names}
    patterns = [panel.pattern for panel in panels if panel.pattern]
    missed = {name for name in written - shown if not any(re.search(pattern, name) for pattern in patterns)}
    assert missed <= {f"train/parameter_norm/layer.{layer}" for layer in range(4)}


def test_a_pattern_takes_its_own_names_only(written: set[str]) -> None:
    """A panel of sources shows no objectives, a panel of layers no totals."""
    for panel in (panel for section in SECTIONS for panel in section.panels if panel.pattern):
        found = {name for name in written if re.search(panel.pattern or "", name)}
        assert all("." in name or name.startswith("events/") for name in found), panel.title
