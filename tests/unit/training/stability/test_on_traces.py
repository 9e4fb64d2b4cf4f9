"""The defaults on made-up runs: how seldom a calm run is suspected, how soon a sick one is."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest

from glm130b.config.load import load_config
from glm130b.config.stability import StabilityConfig
from glm130b.training.schedules import Schedules
from glm130b.training.stability.guard import Guard
from glm130b.training.stability.reading import SIGNALS, Reading
from tests.unit.training.stability.readings import RUN
from tests.unit.training.stability.traces import calm_run, times


def run_of(train_steps: int) -> Schedules:
    """Batches of 256 rows after a ramp from 64 over a thousand full batches."""
    batch = ["batch.global_size=256", "batch.ramp={start: 64, increment: 16, over_samples: 256000}"]
    plain = ["parallel.data=1", "batch.micro_size=1", "evaluation.samples=256", f"train_samples={256 * train_steps}"]
    return Schedules(load_config(RUN, [*plain, *batch]))


def found(schedules: Schedules, readings: Iterable[Reading]) -> Iterator[tuple[int, str, int]]:
    """Step, rule and row of every finding of the default rules."""
    guard = Guard(StabilityConfig(), schedules=schedules)
    for reading in readings:
        verdict = guard.judge(reading)
        guard.remember(verdict)
        yield from ((reading.step, finding.rule, finding.details["row"]) for finding in verdict.findings)


def false_alarms(schedules: Schedules, *, seed: int, noise: float) -> Counter[tuple[str, int]]:
    """Of a calm run, by rule and row."""
    alarms = found(schedules, calm_run(schedules, seed=seed, noise=noise))
    return Counter((rule, row) for _, rule, row in alarms)


@pytest.mark.parametrize("noise", [0.01, 0.06])
def test_calm_runs_are_seldom_suspected(noise: float) -> None:
    alarms = false_alarms(run_of(2500), seed=1, noise=noise)
    assert alarms["loss", 1] <= (0 if noise == 0.01 else 4)
    assert alarms["gradient_norm", 1] + alarms["embedding_gradient_norm", 1] <= 3
    assert max((row for _, row in alarms), default=0) <= 1, "no rule of several in a row would have acted"


@pytest.mark.full
def test_calm_runs_are_seldom_suspected_in_a_hundred_thousand_steps() -> None:
    schedules, alarms = run_of(24_000), Counter[tuple[str, int]]()
    for seed in range(4):
        alarms += false_alarms(schedules, seed=seed, noise=0.01)
    assert alarms["loss", 1] == 0
    assert alarms["gradient_norm", 1] <= 15
    assert alarms["embedding_gradient_norm", 1] <= 15
    assert max((row for _, row in alarms), default=0) <= 1


TROUBLES: dict[str, tuple[str, int, Callable[[Reading, int], Reading]]] = {
    "a loss 1.3 times as high": ("loss", 3, lambda r, n: times(r, loss=1.3)),
    "a loss that climbs 2 % a step": ("loss", 16, lambda r, n: times(r, loss=1.02**n)),
    "a loss that climbs .5 % a step": ("loss", 60, lambda r, n: times(r, loss=1.005**n)),
    "a gradient ten times as large": ("gradient_norm", 2, lambda r, n: times(r, gradient=10, embedding=10)),
    "an embedding ten times as loud": ("embedding_gradient_norm", 2, lambda r, n: times(r, embedding=10)),
    "a gradient that grows 20 % a step": ("gradient_norm", 13, lambda r, n: times(r, gradient=1.2**n)),
}
"""What happens to a reading n steps into the trouble; the rule that must see it, and within how many steps: the loss
three in a row, as its rule acts."""


@pytest.fixture(scope="module")
def short_run() -> tuple[Schedules, list[Reading]]:
    schedules = run_of(1600)
    return schedules, list(calm_run(schedules, seed=2))


@pytest.mark.parametrize("begin", [300, 700, 2400])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_is_found_within_steps(short_run: tuple[Schedules, list[Reading]], trouble: str, begin: int) -> None:
    rule, within, happen = TROUBLES[trouble]
    schedules, readings = short_run
    sick = [happen(reading, n) for n, reading in enumerate(readings[begin : begin + within], start=1)]
    row = 3 if rule == "loss" else 1
    all_found = found(schedules, [*readings[begin - 200 : begin], *sick])
    steps = [step for step, name, length in all_found if (name, length) == (rule, row) and step >= begin]
    assert steps, f"not within {within} steps"


def test_a_spike_is_found_while_the_loss_still_falls_fast(short_run: tuple[Schedules, list[Reading]]) -> None:
    schedules, readings = short_run
    sick = [times(reading, loss=1.3) for reading in readings[60:63]]
    assert (62, "loss", 3) in found(schedules, [*readings[:60], *sick])


def test_every_signal_has_a_trouble() -> None:
    assert {rule for rule, *_ in TROUBLES.values()} == set(SIGNALS)
