"""One process looks, all agree."""

import pytest

from glm130b.config.errors import UserError
from glm130b.environment import Launch
from glm130b.parallel.agreement import from_first_rank
from tests.harness.pool import run_distributed
from tests.harness.stage import in_layout, joined
from tests.harness.synthetic import small_config


def look(launch: Launch, fails: bool) -> object:
    def own_view() -> int:
        if fails:
            raise UserError(f"seen by rank {launch.rank}")
        return 10 + launch.rank

    config, _ = in_layout(small_config(), "TP2 PP2")
    with joined(launch, config) as topology:
        return from_first_rank(own_view, topology)


def test_every_rank_gets_what_the_first_saw() -> None:
    assert run_distributed(look, 4, False) == [10] * 4


def test_every_rank_raises_what_the_first_raised() -> None:
    with pytest.raises(UserError, match="seen by rank 0"):
        run_distributed(look, 4, True)
