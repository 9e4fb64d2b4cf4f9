"""Shards put together, and everything that can be wrong with them told by name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glm130b.checkpoint.released.layout import released_tensors
from glm130b.checkpoint.released.source import ReleasedCheckpoint
from glm130b.config.errors import UserError
from tests.harness.reference_glm import from_released_layout
from tests.harness.released import ITERATION, released_weights, shard_path, write_released
from tests.harness.synthetic import small_config

MODEL = small_config().model
QKV = "transformer.layers.2.attention.query_key_value.weight"


def problems_of(folder: Path, **model: Any) -> tuple[str, ...]:
    with pytest.raises(UserError) as raised:
        ReleasedCheckpoint.open(folder).check(MODEL.model_copy(update=model))
    return raised.value.problems


@pytest.mark.parametrize("num_shards", [1, 2, 4])
def test_any_rows_of_any_tensor(tmp_path: Path, num_shards: int) -> None:
    weights = released_weights(MODEL)
    source = ReleasedCheckpoint.open(write_released(tmp_path, weights, num_shards))
    source.check(MODEL)
    expected = from_released_layout(weights)
    for tensor in released_tensors(MODEL):
        length = tensor.shape[0]
        for start, stop in ((0, length), (length // 3, length // 2 + 1), (length - 1, length)):
            assert torch.equal(source.rows(tensor, start, stop), expected[tensor.name][start:stop].float()), tensor.name


def change(folder: Path, rank: int, edit: Callable[[dict[str, Tensor]], object]) -> Path:
    """Load a shard, edit its tensors, save it; its file."""
    file = shard_path(folder, rank)
    module = torch.load(file, weights_only=True)["module"]
    edit(module)
    torch.save({"module": module}, file)
    return file


@pytest.fixture
def two_shards(tmp_path: Path) -> Path:
    return write_released(tmp_path / "released", released_weights(MODEL), 2)


def test_the_rotary_table_is_optional_and_no_weight(two_shards: Path) -> None:
    change(two_shards, 0, lambda module: [module.pop(key) for key in list(module) if "rotary" in key])
    ReleasedCheckpoint.open(two_shards).check(MODEL)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda module: module.pop(QKV), f"lacks {QKV}; copy the file again"),
        (lambda module: module.update(spare=torch.ones(2)), "has spare, which the model of the config has not; .*"),
        (
            lambda module: module.update({QKV: module[QKV][:-1].clone()}),
            rf"{QKV} has shape \[47, 32\], and one of 2 shards has \[48, 32\]; .*",
        ),
        (
            lambda module: module.update({QKV: module[QKV].to(torch.int8)}),
            rf"{QKV} is of torch\.int8; give weights of float16, bfloat16 or float32, not quantised ones",
        ),
        (
            lambda module: module["transformer.layers.1.attention.dense.bias"][3].add_(0.01),
            r"transformer\.layers\.1\.attention\.dense\.bias is not that of mp_rank_00_model_states\.pt, and every .*",
        ),
    ],
    ids=["missing", "extra", "misshapen", "quantised", "differing copies"],
)
def test_a_bad_tensor_is_named_with_its_file(
    two_shards: Path, edit: Callable[[dict[str, Tensor]], object], problem: str
) -> None:
    file = change(two_shards, 1, edit)
    (found,) = problems_of(two_shards)
    assert re.fullmatch(re.escape(str(file)) + ": " + problem, found), found


def test_all_bad_tensors_of_all_shards_are_told_at_once(two_shards: Path) -> None:
    def spoil(module: dict[str, Tensor]) -> None:
        for layer in range(4):
            module[f"transformer.layers.{layer}.attention.dense.bias"] = torch.ones(1)
            del module[f"transformer.layers.{layer}.mlp.dense_h_to_4h.bias"]

    change(two_shards, 0, spoil)
    change(two_shards, 1, lambda module: module.pop(QKV))
    found = [re.sub(r"^.*/(mp_rank_..)_model_states.pt", r"\1", problem) for problem in problems_of(two_shards)]
    assert [" ".join(problem.split()[:3]) for problem in found] == [
        *(f"mp_rank_00: lacks transformer.layers.{layer}.mlp.dense_h_to_4h.bias;" for layer in range(3)),
        "mp_rank_00: ... and",
        *(f"mp_rank_00: transformer.layers.{layer}.attention.dense.bias has" for layer in range(3)),
        "mp_rank_00: ... and",
        f"mp_rank_01: lacks {QKV};",
    ]


def test_a_damaged_byte_names_the_tensor(two_shards: Path) -> None:
    file = shard_path(two_shards, 1)
    place = ReleasedCheckpoint.open(two_shards).shards[1].tensors[QKV].first_byte
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert problems_of(two_shards) == (f"{file}: {QKV} has not the checksum it was saved with; copy the file again",)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"num_layers": 5}, r"model\.num_layers: 5 in the config, 4 in the 2 shards of .*; write num_layers: 4, or .*"),
        ({"vocab_size": 64}, r"model\.vocab_size: 64 in the config, 96 in the 2 shards of .*; write vocab_size: 96.*"),
        ({"ffn_hidden_size": 64}, r"model\.ffn_hidden_size: 64 in the config, 48 in the 2 shards of .*"),
        (
            {"num_attention_heads": 8},
            r"model\.num_attention_heads: 8 in the config are heads of 4, and .* has rotary frequencies for .* 8; .*",
        ),
    ],
)
def test_a_config_of_another_size_is_told_by_key(two_shards: Path, model: dict[str, Any], problem: str) -> None:
    (found,) = problems_of(two_shards, **model)
    assert re.fullmatch(problem, found), found


def test_all_sizes_are_told_at_once(two_shards: Path) -> None:
    found = problems_of(two_shards, num_layers=3, hidden_size=64, vocab_size=100, ffn_hidden_size=44)
    assert [problem.split(":")[0] for problem in found[:4]] == [
        f"model.{key}" for key in ("num_layers", "vocab_size", "hidden_size", "ffn_hidden_size")
    ]


def test_the_last_shard_missing_shows_in_the_sizes(tmp_path: Path) -> None:
    folder = write_released(tmp_path, released_weights(MODEL), 4)
    shard_path(folder, 3).unlink()
    assert {problem.split(":")[0] for problem in problems_of(folder)} == {"model.vocab_size", "model.ffn_hidden_size"}


def test_a_gap_in_the_numbers_is_a_missing_shard(tmp_path: Path) -> None:
    folder = write_released(tmp_path, released_weights(MODEL), 4)
    shard_path(folder, 0).unlink()
    shard_path(folder, 2).unlink()
    assert problems_of(folder) == tuple(
        f"{shard_path(folder, rank)}: is missing; shards are numbered from 0 without a gap" for rank in (0, 2)
    )


def test_every_file_that_cannot_be_opened_is_told(two_shards: Path) -> None:
    for rank in range(2):
        file = shard_path(two_shards, rank)
        file.write_bytes(file.read_bytes()[:-9])
    assert problems_of(two_shards) == tuple(
        f"{shard_path(two_shards, rank)}: is cut off, its end is missing; copy the file again" for rank in range(2)
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"latest: cannot be read \(No such file or directory\); name the folder that holds `latest` and .*"),
        (b"\xff\xfe", r"latest: cannot be read \(no UTF-8 text\); .*"),
        (b"300", r"latest: names '300', which is no folder beside it; write the name of the shards'"),
        (b"", r"latest: names '', which is no folder beside it; .*"),
    ],
)
def test_an_unreadable_latest(two_shards: Path, content: bytes | None, problem: str) -> None:
    (two_shards / "latest").unlink()
    if content is not None:
        (two_shards / "latest").write_bytes(content)
    (found,) = problems_of(two_shards)
    assert re.fullmatch(re.escape(f"{two_shards}/") + problem, found), found


def test_a_folder_without_shards(two_shards: Path) -> None:
    for rank in range(2):
        shard_path(two_shards, rank).rename(two_shards / ITERATION / f"other_{rank}.pt")
    (problem,) = problems_of(two_shards)
    assert problem.endswith("holds no mp_rank_00_model_states.pt; name a checkpoint in the released layout")
