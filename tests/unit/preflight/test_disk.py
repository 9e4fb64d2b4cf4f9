"""How many checkpoints lie on disk at once, and whether they have room."""

import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from glm130b.config.derived import checkpoint_bytes
from glm130b.config.sections import RunConfig
from glm130b.preflight.disk import clock, disk_speed, kept_checkpoints, room
from glm130b.preflight.site import Site
from tests.harness.synthetic import small_config

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Two checkpoints lie there at once at least, seven at the end."""
    checkpoint = {"every_steps": 2, "keep_last": 1, "keep_every_steps": 4}
    return small_config(checkpoint=checkpoint).model_copy(update={"folder": str(tmp_path)})


@pytest.mark.parametrize(
    ("checkpoint", "kept"),
    [
        ({"every_steps": 2, "keep_last": 3}, (4, 4)),  # the fourth is being written
        ({"every_steps": 10, "keep_last": 3}, (2, 2)),  # there are no more
        ({"every_steps": 2, "keep_last": 1, "keep_every_steps": 4}, (2, 7)),
        ({"every_steps": 2, "keep_last": None}, (2, 10)),
    ],
)
def test_checkpoints_that_lie_there_at_once(checkpoint: dict[str, Any], kept: tuple[int, int]) -> None:
    assert kept_checkpoints(small_config(checkpoint=checkpoint)) == kept


@pytest.mark.parametrize(
    ("free", "there", "state"),
    [
        (7.1, 0, "ok"),
        (2.1, 0, "warning"),
        (1.9, 0, "FAIL"),
        (5.1, 2, "ok"),
        (4.9, 2, "warning"),
        (0.9, 2, "FAIL"),
        (0.9, 9, "FAIL"),
        (1.1, 9, "ok"),
    ],
)
def test_room_counts_what_is_there_already(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, there: int, state: str
) -> None:
    """``free`` and ``there`` in checkpoints."""
    size = checkpoint_bytes(config)
    for step in range(there):
        folder = tmp_path / "small" / "checkpoints" / f"step-{step:08}"
        folder.mkdir(parents=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, int(free * size)))
    (found,) = room(Site(0, config))
    assert found.state == state
    assert ("keep_last" in found.mend) == (state != "ok")


def test_a_file_server_whose_clock_is_off(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, now = clock(Site(0, config))
    assert (folder.state, now.state) == ("ok", "ok")
    real = os.fstat

    def an_hour_ago(descriptor: int) -> os.stat_result:
        parts = list(real(descriptor))
        parts[8] -= 3600  # st_mtime
        return os.stat_result(parts)

    monkeypatch.setattr(os, "fstat", an_hour_ago)
    _, behind = clock(Site(0, config))
    assert behind.state == "warning"
    assert behind.value.startswith("360")


def test_a_full_disk_has_no_speed(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> object:
        return Path("/dev/full").open("wb", buffering=0)

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    (found,) = disk_speed(Site(0, config))
    assert (found.state, found.value) == ("FAIL", "128 MiB cannot be written (No space left on device)")
