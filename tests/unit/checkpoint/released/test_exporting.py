"""The released layout from checkpoints of any layout, bit for bit, whole or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glm130b.checkpoint.description import Description, plain
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.planner import Slice, SliceSavePlanner
from glm130b.checkpoint.released.exporting import export_released
from glm130b.checkpoint.released.importing import import_released
from glm130b.checkpoint.released.source import ReleasedCheckpoint
from glm130b.checkpoint.storage import save_slices
from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.training.progress import Progress
from tests.harness.reference_glm import from_released_layout
from tests.harness.released import released_weights, shard_of, shard_path, write_released
from tests.harness.synthetic import small_config
from tests.unit.checkpoint.released.test_importing import masters

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # no job here


def exported_shard(folder: Path, rank: int, *, memory_mapped: bool = False) -> dict[str, Tensor]:
    name = shard_path(folder, rank).name
    iteration = (folder / "latest").read_text()
    loaded: dict[str, Tensor] = torch.load(folder / iteration / name, weights_only=True, mmap=memory_mapped)["module"]
    return loaded


def checkpoint_of(folder: Path, weights: dict[str, Tensor], config: RunConfig, step: int = 12) -> Path:
    """A checkpoint cut as ZeRO cuts: rows begun and ended in the middle, columns in two parts."""
    slices = []
    for name, whole in from_released_layout(weights).items():
        whole = whole.float()
        if whole.ndim == 1:
            cuts = [(slice(0, 5),), (slice(5, None),)]
        else:
            cuts = [
                *[(slice(0, 3), slice(0, 7)), (slice(0, 3), slice(7, None))],
                *[(slice(3, 4), slice(0, 1)), (slice(3, 4), slice(1, None)), (slice(4, None), slice(0, None))],
            ]
        for cut in cuts:
            offset = tuple(part.start for part in cut)
            slices.append(Slice(f"master/{name}", tuple(whole.shape), offset, whole[cut], is_owner=True))
    checkpoints = CheckpointFolder(folder)
    checkpoints.create()
    description = Description(Progress(step=step), {}, plain(config), "abc", optimizer_state=False)
    save_slices(SliceSavePlanner(slices), checkpoints, step=step, description=description.to_json())
    return checkpoints.at(step)


@pytest.mark.parametrize("num_shards", [1, 2, 4])
def test_every_shard_is_as_the_original_cut_it(tmp_path: Path, num_shards: int) -> None:
    config = small_config()
    weights = released_weights(config.model)
    checkpoint = checkpoint_of(tmp_path / "checkpoints", weights, config)
    export_released(checkpoint, tmp_path / "out", num_shards=num_shards, dtype=torch.float16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "out"]
    assert (tmp_path / "out" / "latest").read_text() == "12"
    for rank in range(num_shards):
        shard = exported_shard(tmp_path / "out", rank, memory_mapped=rank % 2 == 0)
        assert shard.keys() == weights.keys()
        for key in (key for key in weights if "rotary" not in key):
            assert shard[key].dtype == torch.float16
            assert torch.equal(shard[key], shard_of(key, weights[key], rank, num_shards)), key
    assert len(list((tmp_path / "out" / "12").iterdir())) == num_shards
    ReleasedCheckpoint.open(tmp_path / "out").check(config.model)


@pytest.mark.parametrize(("shards_in", "shards_out"), [(1, 4), (4, 2), (2, 1)])
def test_the_round_trip_is_exact(tmp_path: Path, config: RunConfig, shards_in: int, shards_out: int) -> None:
    """Also in the bits of minus zero and of the smallest and largest numbers."""
    weights = released_weights(config.model)
    for key in (key for key in weights if "dense" in key):
        weights[key].flatten()[:5] = torch.tensor([-0.0, 6e-8, -6e-5, 65504.0, -65504.0]).half()
    once = import_released(write_released(tmp_path / "released", weights, shards_in), config)
    export_released(once, tmp_path / "out", num_shards=shards_out, dtype=torch.float16)
    for rank in range(shards_out):
        for key, value in exported_shard(tmp_path / "out", rank).items():
            if "rotary" not in key:
                expected = shard_of(key, weights[key], rank, shards_out)
                assert torch.equal(value.view(torch.int16), expected.view(torch.int16)), key
    again = import_released(tmp_path / "out", config.model_copy(update={"name": "again"}))
    first, second = masters(once), masters(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name].view(torch.int32), second[name].view(torch.int32)) for name in first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_masters_are_rounded_to_the_number_format(tmp_path: Path, dtype: torch.dtype) -> None:
    config = small_config()
    weights = {key: whole.float() + 1e-5 for key, whole in released_weights(config.model).items()}
    checkpoint = checkpoint_of(tmp_path / "checkpoints", weights, config)
    export_released(checkpoint, tmp_path / "out", num_shards=2, dtype=dtype)
    for key, value in exported_shard(tmp_path / "out", 1).items():
        assert value.dtype == dtype
        if "rotary" not in key:
            assert torch.equal(value, shard_of(key, weights[key], 1, 2).to(dtype)), key


@pytest.mark.parametrize(("positions", "width"), [("rope", 8), ("rope_2d", 4)])
def test_the_rotary_table_is_as_the_original_had_it(tmp_path: Path, positions: str, width: int) -> None:
    config = small_config(model={"positions": positions})
    checkpoint = checkpoint_of(tmp_path / "checkpoints", released_weights(config.model), config)
    export_released(checkpoint, tmp_path / "out", num_shards=2, dtype=torch.float16)
    table = (1.0 / (10000 ** (torch.arange(0, width, 2).float() / width))).half()
    for layer in range(4):
        key = f"transformer.layers.{layer}.attention.rotary_emb.inv_freq"
        assert torch.equal(exported_shard(tmp_path / "out", 1)[key], table)


def test_what_fp16_does_not_hold_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    config = small_config()
    weights = {key: whole.float() for key, whole in released_weights(config.model).items()}
    weights["transformer.layers.1.attention.dense.weight"][3, 0] = 65520.0  # the first number that rounds to infinity
    weights["transformer.layers.2.mlp.dense_4h_to_h.bias"][31] = float("nan")
    checkpoint = checkpoint_of(tmp_path / "checkpoints", weights, config)
    with pytest.raises(UserError) as raised:
        export_released(checkpoint, tmp_path / "out", num_shards=2, dtype=torch.float16)
    assert {problem.split(":")[1].split()[0] for problem in raised.value.problems} == {
        "decoder.layers.1.self_attention.linear_proj.weight",
        "decoder.layers.2.mlp.linear_fc2.bias",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    weights["transformer.layers.2.mlp.dense_4h_to_h.bias"][31] = 0
    checkpoint = checkpoint_of(tmp_path / "checkpoints", weights, config, step=13)
    export_released(checkpoint, tmp_path / "out", num_shards=2, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("sections", "num_shards", "problem"),
    [
        ({"ffn": "swiglu"}, 2, r"^model\.ffn: 'swiglu' has no place in the released layout"),
        ({}, 8, r"^model\.num_attention_heads: 4 does not divide over 8 shards"),
        ({"hidden_size": 64}, 2, r"^checkpoint: master/embedding\.word\.weight has shape \[96, 32\]"),
        ({"num_layers": 5}, 2, r"^checkpoint: master/decoder\.layers\.4\.\S+ \(and 11 more tensors\) missing"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, sections: dict[str, Any], num_shards: int, problem: str
) -> None:
    weights = released_weights(small_config().model)
    checkpoint = checkpoint_of(tmp_path / "checkpoints", weights, small_config(model=sections))
    with pytest.raises(UserError, match=problem):
        export_released(checkpoint, tmp_path / "out", num_shards=num_shards, dtype=torch.float16)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"out: is there already; name a new folder$"):
        export_released(tmp_path, tmp_path / "out", num_shards=1, dtype=torch.float16)


def test_a_checkpoint_that_breaks_off_is_told(tmp_path: Path) -> None:
    config = small_config()
    checkpoint = checkpoint_of(tmp_path / "checkpoints", released_weights(config.model), config)
    (data,) = checkpoint.glob("*.distcp")
    data.write_bytes(data.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"distcp: is cut off; go on from another checkpoint$"):
        export_released(checkpoint, tmp_path / "out", num_shards=1, dtype=torch.float16)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
