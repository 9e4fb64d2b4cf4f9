"""What one process holds: one chunk of layers or several, in their order."""

from typing import Any

import pytest
import torch

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.segments import PackedSegments
from tests.harness.pool import run_distributed
from tests.harness.stage import initial_stage
from tests.harness.synthetic import small_config


def contents(launch: Launch, config: RunConfig) -> list[dict[str, Any]]:
    """Every chunk of this process's stage, in order."""
    with initial_stage(launch, config) as stage:
        chunks = list(stage)
        assert len(stage) == len(chunks)
        assert [p for chunk in chunks for p in chunk.parameters()] == list(stage.parameters())
        assert all(name.startswith("chunks.") for name, _ in stage.named_parameters())
        return [
            {
                "layers": [layer.layer_number - 1 for layer in chunk.decoder.layers],
                "ends": (hasattr(chunk, "embedding"), hasattr(chunk, "output_layer")),
                "virtual_stage": chunk.vp_stage,
            }
            for chunk in chunks
        ]


def test_a_stage_is_one_chunk() -> None:
    first, last = run_distributed(contents, 2, small_config(parallel={"pipeline": 2}))
    assert first == [{"layers": [0, 1], "ends": (True, False), "virtual_stage": None}]
    assert last == [{"layers": [2, 3], "ends": (False, True), "virtual_stage": None}]


def test_virtual_stages_are_chunks_spread_over_the_depth() -> None:
    """The embedding is in the first stage's first chunk, the projection in the last one's last."""
    config = small_config(parallel={"pipeline": 2, "virtual_stages": 2})
    first, last = run_distributed(contents, 2, config)
    assert first == [
        {"layers": [0], "ends": (True, False), "virtual_stage": 0},
        {"layers": [2], "ends": (False, False), "virtual_stage": 1},
    ]
    assert last == [
        {"layers": [1], "ends": (False, False), "virtual_stage": 0},
        {"layers": [3], "ends": (False, True), "virtual_stage": 1},
    ]


def through_the_stage(launch: Launch, config: RunConfig) -> bool:
    """Whether calling the stage is calling its chunk; raises what it raises."""
    with initial_stage(launch, config) as stage, torch.no_grad():
        inputs = torch.arange(12)[None], torch.arange(12).expand(1, 2, 12), PackedSegments([[(0, 4, 8)]])
        return torch.equal(stage(*inputs), next(iter(stage))(*inputs))


def test_a_stage_of_one_chunk_is_called_like_it() -> None:
    assert run_distributed(through_the_stage, 1, small_config()) == [True]


def test_several_chunks_are_not_called_at_once() -> None:
    """Between two of them lie the other stages' chunks."""
    with pytest.raises(ValueError, match="too many values"):
        run_distributed(through_the_stage, 2, small_config(parallel={"pipeline": 2, "virtual_stages": 2}))
