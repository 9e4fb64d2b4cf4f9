"""The tokens seen, against counting row by row."""

from collections import Counter

import pytest

from glm130b.config.sections import RunConfig
from glm130b.data.mixing.era import Era
from glm130b.data.mixing.mixture import Mixture
from glm130b.training.progress import Progress
from glm130b.training.schedules import Schedules
from glm130b.training.tokens_seen import TokensSeen
from tests.harness.synthetic import SEQUENCE, small_config


def source(weight: float) -> dict[str, object]:
    return {"path": "nowhere", "weight": {"start": weight, "end": weight}}


@pytest.fixture
def config() -> RunConfig:
    """Ten steps of eight rows; steps 3, 4 and 7 are passed over. A source of either section has the same name."""
    return small_config(
        train_samples=80,  # type: ignore[arg-type]
        data={
            "text": {"books": source(0.7), "code": source(0.3)},
            "instructions": {"code": source(1.0)},
            "skip_steps": ({"from_step": 3, "steps": 2}, {"from_step": 7, "steps": 1}),
        },
    )


def test_rows_that_were_trained_on_are_counted(config: RunConfig) -> None:
    mixture, schedules = Mixture([Era.of(config)]), Schedules(config)
    seen = TokensSeen(mixture, schedules)
    for step in range(11):
        counted: Counter[str] = Counter()
        for taken in (n for n in range(step) if n not in (3, 4, 7)):
            for draw in map(mixture.locate, range(8 * taken, 8 * taken + 8)):
                section = "instructions" if draw.objective == "instruction" else "text"
                counted.update([f"tokens/{draw.objective}", f"tokens/{section}.{draw.source}"] * SEQUENCE)
        found = seen.until(Progress(step=step, samples=8 * step))
        assert {name: count for name, count in found.items() if count} == counted
