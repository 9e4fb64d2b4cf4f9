"""Flat fragments as rectangles, and every layout's slices as a tiling of whole tensors."""

import math
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glm130b.checkpoint.slices import optimizer_slices, rectangles
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel.topology import disconnect
from tests.harness.pool import run_distributed
from tests.harness.synthetic import small_config
from tests.harness.training import initial_weights, live_run

STATES = ("master", "exp_avg", "exp_avg_sq")


@given(st.data())
def test_rectangles_tile_the_flat_range_exactly(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=2)))
    numel = math.prod(shape)
    start = data.draw(st.integers(0, numel - 1))
    length = data.draw(st.integers(1, numel - start))
    flat = torch.arange(start, start + length)
    whole = torch.full(shape, -1)
    pieces = list(rectangles(start, flat, shape))
    for offset, view in pieces:
        place = whole[tuple(slice(o, o + n) for o, n in zip(offset, view.shape, strict=True))]
        assert place.shape == view.shape
        assert (place == -1).all()
        place.copy_(view)
    expected = torch.full((numel,), -1)
    expected[start : start + length] = flat
    assert torch.equal(whole.flatten(), expected)
    assert len(pieces) <= (1 if len(shape) == 1 else 3)


def test_the_end_of_a_row_full_rows_and_the_beginning_of_a_row() -> None:
    pieces = [(offset, tuple(view.shape)) for offset, view in rectangles(3, torch.zeros(14), (4, 5))]
    assert pieces == [((0, 3), (1, 2)), ((1, 0), (2, 5)), ((3, 0), (1, 2))]


def test_a_rectangle_is_the_memory_itself() -> None:
    flat = torch.zeros(12)
    for _, view in rectangles(3, flat, (4, 5)):
        view.fill_(1.0)
    assert flat.tolist() == [1.0] * 12


class Held(NamedTuple):
    """A slice, as it travels between processes."""

    key: str
    whole_shape: tuple[int, ...]
    offset: tuple[int, ...]
    values: np.ndarray[Any, Any]
    is_owner: bool


def held(launch: Launch, config: RunConfig) -> list[Held]:
    """This rank's slices before the first step."""
    run = live_run(config, launch)
    slices = optimizer_slices(run.stage, run.engine, run.topology)
    result = [Held(s.key, s.whole_shape, s.offset, s.view.numpy().copy(), s.is_owner) for s in slices]
    disconnect()
    return result


@pytest.mark.parametrize(
    ("parallel", "world_size"),
    [
        ({}, 1),
        ({"tensor": 2, "data": 2}, 4),
        ({"data": 3}, 3),
        ({"tensor": 2, "pipeline": 2, "data": 2}, 8),
        ({"data": 2, "zero_stage": 2}, 2),
    ],
)
def test_owned_slices_tile_every_whole_tensor_once(parallel: dict[str, int], world_size: int) -> None:
    weights = run_distributed(initial_weights, 1, small_config())[0]
    config = small_config(parallel=parallel, batch={"global_size": 12}, evaluation={"samples": 12})
    owned: dict[str, Any] = {}
    times: dict[str, Any] = defaultdict(int)
    for piece in (piece for rank in run_distributed(held, world_size, config) for piece in rank if piece.is_owner):
        whole = owned.setdefault(piece.key, np.full(piece.whole_shape, np.nan, np.float32))
        count = times.setdefault(piece.key, np.zeros(piece.whole_shape, np.int64))
        place = tuple(slice(o, o + n) for o, n in zip(piece.offset, piece.values.shape, strict=True))
        whole[place] = piece.values
        count[place] += 1
    assert set(owned) == {f"{state}/{name}" for state in STATES for name in weights}
    for key, whole in owned.items():
        state, _, name = key.partition("/")
        assert (times[key] == 1).all(), key
        expected = weights[name].numpy() if state == "master" else np.zeros(weights[name].shape, np.float32)
        np.testing.assert_array_equal(whole, expected)


def test_every_rank_that_computes_with_a_tensor_holds_it() -> None:
    config = small_config(parallel={"tensor": 2, "pipeline": 2, "data": 2})
    elements: dict[str, int] = defaultdict(int)
    for rank in run_distributed(held, 8, config):
        for piece in rank:
            elements[piece.key] += piece.values.size
    size = config.model
    assert elements["master/decoder.layers.3.mlp.linear_fc1.weight"] == 2 * size.ffn_hidden_size * size.hidden_size
    assert elements["master/decoder.layers.0.input_layernorm.weight"] == 2 * size.hidden_size  # both tensor ranks
    assert elements["master/embedding.word.weight"] == 2 * size.vocab_size * size.hidden_size  # first and last stage
