"""The first checkpoint of a run, whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glm130b.checkpoint.description import Description
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.layout import Layout
from glm130b.checkpoint.planner import Slice
from glm130b.checkpoint.released import importing
from glm130b.checkpoint.released.importing import import_released
from glm130b.checkpoint.released.source import ReleasedCheckpoint
from glm130b.checkpoint.storage import load_slices
from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.data.tokenizers.tokenizer import Tokenizer
from glm130b.training.progress import Progress
from tests.harness.reference_glm import from_released_layout
from tests.harness.released import released_weights, shard_path, write_released

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # no job here


def masters(checkpoint: Path) -> dict[str, Tensor]:
    """Everything in a checkpoint, by whole name."""
    tensors = {key: torch.full(stored.shape, torch.nan) for key, stored in Layout.read(checkpoint).tensors.items()}
    load_slices([Slice.whole(key, tensor) for key, tensor in tensors.items()], checkpoint)
    return {key.removeprefix("master/"): tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize("num_shards", [1, 4])
@pytest.mark.parametrize("slice_elements", [2**26, 1500])
def test_master_weights_are_the_released_ones(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch, num_shards: int, slice_elements: int
) -> None:
    """Also when a tensor is read in many slices, which end in the middle of shards."""
    monkeypatch.setattr(importing, "_SLICE_ELEMENTS", slice_elements)
    weights = released_weights(config.model)
    checkpoint = import_released(write_released(tmp_path / "released", weights, num_shards), config)
    assert checkpoint == CheckpointFolder(Path(config.folder) / "small" / "checkpoints").latest()
    found, expected = masters(checkpoint), from_released_layout(weights)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name].float()) for name in expected)


def test_run_json_says_that_there_is_no_optimizer_state(tmp_path: Path, config: RunConfig) -> None:
    released = write_released(tmp_path / "released", released_weights(config.model))
    checkpoint = import_released(released, config, samples=24)
    assert json.loads((checkpoint / "run.json").read_text())["optimizer_state"] is False
    description = Description.read(checkpoint)
    assert description.progress == Progress(step=3, samples=24)
    assert description.counters == {"optimizer_step": 0.0, "loss_scaler": {}}
    assert not description.changes(config)
    description.check_continues(config, Tokenizer.load(config.data.tokenizer).fingerprint)


def test_a_run_that_has_a_checkpoint_is_refused(tmp_path: Path, config: RunConfig) -> None:
    released = write_released(tmp_path / "released", released_weights(config.model))
    checkpoint = import_released(released, config)
    before = {file: file.stat().st_mtime_ns for file in checkpoint.iterdir()}
    with pytest.raises(UserError) as raised:
        import_released(released, config)
    assert raised.value.problems == (
        f"name: small has a checkpoint, {checkpoint}; choose another name for the imported run",
    )
    assert {file: file.stat().st_mtime_ns for file in checkpoint.iterdir()} == before


@pytest.mark.parametrize("samples", [-1, 160])
def test_samples_outside_the_run(tmp_path: Path, config: RunConfig, samples: int) -> None:
    with pytest.raises(UserError, match=rf"^--samples: {samples} is not inside the run; write 0 up to .*, 159$"):
        import_released(tmp_path, config, samples=samples)


def cut_off(folder: Path) -> None:
    file = shard_path(folder, 1)
    file.write_bytes(file.read_bytes()[:-1])


def of_another_training(folder: Path) -> None:
    file = shard_path(folder, 1)
    module = torch.load(file, weights_only=True)["module"]
    module["transformer.final_layernorm.weight"] += 1
    torch.save({"module": module}, file)


@pytest.mark.parametrize("damage", [cut_off, of_another_training])
def test_nothing_is_written_from_a_damaged_release(
    tmp_path: Path, config: RunConfig, damage: Callable[[Path], None]
) -> None:
    released = write_released(tmp_path / "released", released_weights(config.model), 2)
    damage(released)
    with pytest.raises(UserError, match="mp_rank_01_model_states"):
        import_released(released, config)
    assert not Path(config.folder).exists()


def test_a_file_that_breaks_while_it_is_read_leaves_no_checkpoint(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = write_released(tmp_path / "released", released_weights(config.model))

    def broken(*_: object) -> Tensor:
        raise OSError("the disk is gone")

    monkeypatch.setattr(ReleasedCheckpoint, "rows", broken)
    with pytest.raises(UserError, match=r"checkpoints: cannot be written from .*released \(the disk is gone\); "):
        import_released(released, config)
    assert list((Path(config.folder) / "small" / "checkpoints").iterdir()) == []
