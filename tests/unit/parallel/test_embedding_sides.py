"""The two shares of the embedding's gradient, each by itself; ``tests/dist/test_gradient_norms.py`` has whole steps."""

import pytest
import torch
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel import embedding_sides
from glm130b.parallel.embedding_sides import EmbeddingGradient, SidesOnOneStage, SidesOnTwoStages
from glm130b.parallel.placement import build_stage
from tests.harness.pool import run_distributed
from tests.harness.stage import joined
from tests.harness.synthetic import small_config

TOKENS_BS = torch.tensor([[5, 90, 5, 7], [0, 1, 47, 95]])
POSITIONS_B2S = torch.zeros(2, 2, 4, dtype=torch.int64)
LOSS_SCALE = 4.0


def looked_up_twice(launch: Launch, config: RunConfig) -> tuple[Tensor, Tensor]:
    """(found, expected) squares of this tensor rank: two micro-batches, a look-up without gradient, a logit side."""
    with joined(launch, config) as topology, pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding_sides, "BUCKET_ELEMENTS", 1000)
        stage = build_stage(config, topology)
        (chunk,) = stage
        sides, weight = SidesOnOneStage(stage, topology), chunk.embedding.word.weight
        for step in range(2):
            if step:  # the step before is forgotten
                sides.clear()
            weight.grad = None
            for alpha in (1.0, 0.25):
                out_SBH = chunk.embedding(TOKENS_BS, POSITIONS_B2S, alpha)
                (out_SBH * torch.randn(out_SBH.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
        with torch.no_grad():
            chunk.embedding(TOKENS_BS, POSITIONS_B2S, 1.0)
        logit_side = torch.linspace(-1, 1, weight.numel())
        start = 7  # of what this rank owns
        owned = EmbeddingGradient((weight.grad.flatten() + logit_side)[start:] / 2, start, factor=2 / LOSS_SCALE)
        expected = torch.stack([weight.grad.flatten()[start:], logit_side[start:]]).double() / LOSS_SCALE
        return sides.squares(owned, LOSS_SCALE), expected.square().sum(dim=1)


@pytest.mark.parametrize("parallel", [{}, {"tensor": 2}, {"tensor": 2, "sequence_parallel": True}], ids=str)
def test_on_one_stage_the_look_ups_share_is_gathered(parallel: dict[str, int]) -> None:
    config = small_config(parallel=parallel)
    for found, expected in run_distributed(looked_up_twice, parallel.get("tensor", 1), config):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)
        assert (expected > 0).all()


def reduced(launch: Launch, config: RunConfig) -> list[float]:
    """Squares of a gradient that is all rank + 1, over the data axis, in buckets of which the last is not full."""
    with joined(launch, config) as topology, pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding_sides, "BUCKET_ELEMENTS", 1000)
        sides = SidesOnTwoStages(build_stage(config, topology), topology)
        sides.read_apart(lambda parameter: torch.full_like(parameter, launch.rank + 1.0))
        return sides.squares(None, LOSS_SCALE).tolist()


def test_on_two_stages_each_share_is_reduced_over_the_data_axis() -> None:
    config = small_config(parallel={"pipeline": 2, "data": 4}, model={"vocab_size": 97})
    ranks = torch.tensor(run_distributed(reduced, 8, config), dtype=torch.float64)
    size = 97 * config.model.hidden_size
    first, last = (sum(ranks) / 4 / LOSS_SCALE for ranks in ((1, 2, 3, 4), (5, 6, 7, 8)))
    assert ranks[:4].sum(dim=0).tolist() == [pytest.approx(size * first**2), 0.0]
    assert ranks[4:].sum(dim=0).tolist() == [0.0, pytest.approx(size * last**2)]
