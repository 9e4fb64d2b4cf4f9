"""A place that is full or closed is told before anything is read or written."""

import os
import re
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from glm130b.checkpoint.released import exporting, importing
from glm130b.checkpoint.released.exporting import export_released
from glm130b.checkpoint.released.importing import import_released
from glm130b.checkpoint.released.room import check_room
from glm130b.checkpoint.released.source import ReleasedCheckpoint
from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from tests.harness.released import released_weights, shard_of, write_released

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # no job here


def leave(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


def test_needed_and_free_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs" / "new"
    leave(monkeypatch, 520_000_000_000)
    check_room(folder, 514_000_000_000)
    with pytest.raises(UserError) as raised:
        check_room(folder, 520_000_000_000)
    assert raised.value.problems == (
        f"{folder}: needs 525.22 GB and 520.00 GB are free; free some, or name another folder",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"new: cannot be made in .*file \(it is a file\); name another folder$"):
        check_room(tmp_path / "file" / "new", 1)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UserError, match=r"a/b: cannot be made in .* \(this user may not write there\); name another"):
        check_room(tmp_path / "a" / "b", 1)


def asked(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[int]:
    """Bytes that ``module`` asks room for, which it then does not get."""
    sizes: list[int] = []

    def refuse(folder: Path, data_bytes: int) -> None:
        sizes.append(data_bytes)
        leave(monkeypatch, 1000)
        check_room(folder, data_bytes)

    monkeypatch.setattr(module, "check_room", refuse)
    return sizes


def num_weights(weights: dict[str, Tensor]) -> int:
    return sum(weight.numel() for key, weight in weights.items() if "rotary" not in key)


def test_an_import_asks_for_four_bytes_a_weight_before_it_reads(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = released_weights(config.model)
    released = write_released(tmp_path / "released", weights)
    sizes = asked(monkeypatch, importing)
    monkeypatch.setattr(ReleasedCheckpoint, "check", lambda *_: pytest.fail("was read"))
    with pytest.raises(UserError, match=rf"^{re.escape(config.folder)}/small/checkpoints: needs .* are free; "):
        import_released(released, config)
    assert sizes == [4 * num_weights(weights)]
    assert not Path(config.folder).exists()


@pytest.mark.parametrize("num_shards", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_an_export_asks_for_its_shards(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch, num_shards: int, dtype: torch.dtype
) -> None:
    """A little more than the weights: every shard has a copy of the norms and of some biases."""
    weights = released_weights(config.model)
    checkpoint = import_released(write_released(tmp_path / "released", weights), config)
    sizes = asked(monkeypatch, exporting)
    with pytest.raises(UserError, match=r"out: needs 0\.02 GB and 0\.00 GB are free; free some, or name another"):
        export_released(checkpoint, tmp_path / "out", num_shards=num_shards, dtype=dtype)
    shard = sum(shard_of(key, weights[key], 0, num_shards).numel() for key in weights if "rotary" not in key)
    assert sizes == [num_shards * shard * dtype.itemsize]
    assert not list(tmp_path.glob("*out*"))
