"""The layout against this machine's GPUs, and the checkpoints that a run would go on from."""

from pathlib import Path

import pytest

from glm130b.config.load import load_config
from glm130b.preflight.run_files import checkpoints, config_fits
from glm130b.preflight.site import Site
from tests.harness.synthetic import small_config


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(0, small_config().model_copy(update={"folder": str(tmp_path)}))


def test_a_tensor_axis_longer_than_a_machine_is_a_warning() -> None:
    config = load_config(Path(__file__).parents[3] / "configs" / "glm-130b.yaml")  # tensor 4
    assert [found.state for found in config_fits(Site(2, config, world_size=768))] == ["warning"]
    assert [found.state for found in config_fits(Site(8, config, world_size=768))] == ["ok"]


def test_a_new_run_has_no_checkpoints(site: Site) -> None:
    (found,) = checkpoints(site)
    assert (found.state, found.value.split()[0]) == ("ok", "none")


def test_of_a_large_checkpoint_only_some_files_are_read(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "small" / "checkpoints" / "step-00000010"
    folder.mkdir(parents=True)
    for rank in range(100):
        (folder / f"rank-{rank:05}").touch()
    (found,) = checkpoints(site)
    assert found.value.endswith("step-00000010 has 15 readable files")


def test_a_checkpoint_is_read_to_be_sure(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "small" / "checkpoints"
    for step in (5, 10):
        (folder / f"step-{step:08}").mkdir(parents=True)
        (folder / f"step-{step:08}" / "run.json").write_text("{}")
        (folder / f"step-{step:08}" / "shard").touch()
    (found,) = checkpoints(site)
    assert (found.state, found.value) == ("ok", f"2 in {folder}, step-00000010 has 2 readable files")

    (folder / "step-00000010" / "shard").unlink()
    (folder / "step-00000010" / "shard").symlink_to("/proc/self/mem")  # opens, and cannot be read
    (found,) = checkpoints(site)
    assert (found.state, found.value) == (
        "FAIL",
        f"{folder}/step-00000010/shard cannot be read, as 1 of 2 files",
    )
