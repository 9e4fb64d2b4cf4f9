"""What a layer's output is counted for. Every layout against plain PyTorch: tests/dist/test_step_measurements.py."""

import pytest
import torch
from torch import Tensor

from glm130b.environment import Launch
from glm130b.model.activation_scale import ActivationScale
from glm130b.model.segments import PackedSegments
from tests.harness.pool import run_distributed
from tests.harness.reference_comparison import first_batch
from tests.harness.stage import initial_stage
from tests.harness.synthetic import SEQUENCE, small_config

ELEMENTS = 8 * SEQUENCE * 32
"""In a layer's output, [S, B, H] of the first step's rows."""


def taken(launch: Launch, recompute: str) -> tuple[list[list[float]], list[float]]:
    """After one forward and backward, after two, after an evaluation, after nothing; and by hand the first pass's sum
    of squares of every layer."""
    config, squares = small_config(parallel={"recompute": recompute}), []
    batch = first_batch(config)
    with initial_stage(launch, config) as stage:
        scale = ActivationScale(stage)
        (chunk,) = stage

        def keep(_layer: object, _inputs: object, handed_on: tuple[Tensor, None]) -> None:
            squares.append(handed_on[0].detach().double().square().sum().item())

        for layer in chunk.decoder.layers:
            layer.register_forward_hook(keep)

        def passes(count: int) -> list[float]:
            for _ in range(count):
                losses_BS = chunk(
                    batch.tokens_BS, batch.positions_B2S, PackedSegments(batch.segments), batch.targets_BS
                )
                if losses_BS.requires_grad:
                    losses_BS.sum().backward()
            return scale.take()

        found = [passes(1), passes(2)]
        stage.eval()
        with torch.no_grad():
            found.append(passes(1))
        return [*found, passes(0)], squares[: config.model.num_layers]


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_rows_of_training_are_counted_once(recompute: str) -> None:
    (one, two, evaluated, nothing), squares = run_distributed(taken, 1, recompute)[0]
    assert one == pytest.approx([number for square in squares for number in (square, ELEMENTS)], rel=1e-6)
    assert two == pytest.approx([2 * number for number in one], rel=1e-6)
    assert evaluated == nothing == [0.0] * len(one)
