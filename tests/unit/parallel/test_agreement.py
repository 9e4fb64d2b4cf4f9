"""One process looks and all agree; each tells and all hear."""

import pytest
import torch

from glm130b.config.errors import UserError
from glm130b.environment import Launch
from glm130b.parallel.agreement import from_first_rank, shown_by_all, told_by_all
from tests.harness.pool import run_distributed
from tests.harness.stage import in_layout, joined
from tests.harness.synthetic import small_config


def look(launch: Launch, error: type[Exception] | None) -> object:
    def own_view() -> int:
        if error:
            raise error(f"seen by rank {launch.rank}")
        return 10 + launch.rank

    config, _ = in_layout(small_config(), "TP2 PP2")
    with joined(launch, config) as topology:
        return from_first_rank(own_view, topology)


def test_every_rank_gets_what_the_first_saw() -> None:
    assert run_distributed(look, 4, None) == [10] * 4


def refused(launch: Launch, error: type[Exception]) -> str:
    try:
        return f"no error: {look(launch, error)}"
    except error as raised:
        return str(raised)


@pytest.mark.parametrize("error", [UserError, OSError])
def test_every_rank_raises_what_the_first_raised(error: type[Exception]) -> None:
    assert run_distributed(refused, 4, error) == ["seen by rank 0"] * 4


def tell(launch: Launch) -> object:
    config, _ = in_layout(small_config(), "TP2 PP2")
    with joined(launch, config) as topology:
        told = told_by_all([float(launch.rank), 1 / 3], topology)
        assert told.dtype == torch.float64
        return told.tolist(), shown_by_all(f"host {launch.rank}", topology)


def test_every_rank_hears_what_each_told() -> None:
    heard = [[float(rank), 1 / 3] for rank in range(4)]
    assert run_distributed(tell, 4) == [(heard, ("host 0", "host 1", "host 2", "host 3"))] * 4
