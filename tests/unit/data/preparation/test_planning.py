"""Shards: who makes them again when something changes."""

import dataclasses
import os
from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.data.preparation.inputs import Dataset, Request
from glm130b.data.preparation.planning import Cutting, plan_shards
from glm130b.data.preparation.rendering import PlainPairs
from glm130b.data.reading.pieces import Reading

CUTTING = Cutting(piece_bytes=100, small_file_bytes=50, files_per_shard=4)


def keys(request: Request, *, fingerprint: str = "f") -> list[str]:
    return [shard.key for shard in plan_shards(request, fingerprint=fingerprint, cutting=CUTTING)]


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    """A file of three pieces, ten small files, a file of two pieces."""
    files = [tmp_path / f"{i:02d}.jsonl" for i in range(12)]
    for i, file in enumerate(files):
        file.write_text("x" * {0: 250, 11: 200}.get(i, 10 + i))
    dataset = Dataset(name="a", files=tuple(files))
    return Request(kind="text", tokenizer=Path("t"), datasets=(dataset,), reading=Reading(), validation_share=0.1)


def test_large_files_are_cut_and_small_ones_put_together(request_: Request) -> None:
    shards = plan_shards(request_, fingerprint="f", cutting=CUTTING)
    assert [(shard.first_file, len(shard.pieces), shard.work) for shard in shards] == [
        *[(0, 1, 100), (0, 1, 100), (0, 1, 50)],
        *[(1, 4, 50), (5, 4, 66), (9, 2, 39)],
        *[(11, 1, 100), (11, 1, 100)],
    ]
    assert len({shard.key for shard in shards}) == len(shards)


def test_a_changed_file_changes_its_own_shards(request_: Request) -> None:
    before = keys(request_)
    file = request_.files[6]
    file.write_text("changed, and of another size")
    assert [i for i, (new, old) in enumerate(zip(keys(request_), before, strict=True)) if new != old] == [4]
    before = keys(request_)
    os.utime(request_.files[0], ns=(5, 5))
    assert [i for i, (new, old) in enumerate(zip(keys(request_), before, strict=True)) if new != old] == [0, 1, 2]


def test_what_changes_tokens_changes_keys_and_nothing_else_does(request_: Request) -> None:
    before = keys(request_)
    pairs = dataclasses.replace(request_, datasets=(dataclasses.replace(request_.datasets[0], renderer=PlainPairs()),))
    different = [
        keys(request_, fingerprint="g"),
        keys(dataclasses.replace(request_, reading=Reading(text_field="body"))),
        keys(pairs),
        keys(dataclasses.replace(pairs, validation_share=0.2)),  # held-out exemplars are not shown
    ]
    assert len({key for some in [before, *different] for key in some}) == 5 * len(before)
    capped = dataclasses.replace(request_.datasets[0], cap=3, weight=2.0)
    assert before == keys(dataclasses.replace(request_, datasets=(capped,)))
    assert before == keys(dataclasses.replace(request_, validation_share=0.2, drop_duplicates=True))


def test_all_files_that_are_not_there_are_named(request_: Request) -> None:
    for file in request_.files[2:5]:
        file.unlink()
    with pytest.raises(UserError) as error:
        keys(request_)
    assert [problem.partition(":")[0] for problem in error.value.problems] == [str(f) for f in request_.files[2:5]]
