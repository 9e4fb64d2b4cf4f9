"""Robust medians, and what enters the window."""

import math
import random

import pytest

from glm130b.config.stability import SpikeRule
from glm130b.training.stability.window import Level, Window


def test_level_of_normal_numbers_is_their_mean_and_deviation() -> None:
    rng = random.Random(1)
    values = tuple(rng.gauss(5, 2) for _ in range(20_000))
    level = Level.of(values)
    assert level.median == pytest.approx(5, abs=0.05)
    assert level.deviation == pytest.approx(2, abs=0.05)


def test_a_fifth_of_wild_values_does_not_hide_a_spike() -> None:
    level = Level.of((1.0, 1.1, 1e9, 0.9, 1.05, 0.95, 1.1, 1e9, 1.0, 1.1))
    assert level.median == pytest.approx(1.075)
    assert level.deviation < 0.3
    assert level.is_spike(10.0, SpikeRule())


def test_a_steady_fall_is_no_noise() -> None:
    assert Level.of(tuple(10 - 0.05 * step for step in range(100))).deviation == pytest.approx(0.05 * 1.0484, rel=1e-3)


def test_a_spike_is_high_by_ratio_and_by_deviations() -> None:
    rule = SpikeRule(ratio=3, deviations=10)
    assert not Level(1.0, 0.01).is_spike(3.0, rule)
    assert Level(1.0, 0.01).is_spike(3.01, rule)
    assert not Level(1.0, 0.5).is_spike(6.0, rule)
    assert Level(1.0, 0.5).is_spike(6.01, rule)
    assert not Level(1.0, 0.01).is_spike(0.0, rule), "a low value is none"


def test_a_flat_window_has_only_the_ratio() -> None:
    level = Level.of((2.0,) * 8)
    assert level.deviations(2.5) == math.inf
    assert not level.is_spike(2.5, SpikeRule(ratio=1.5))
    assert level.is_spike(3.1, SpikeRule(ratio=1.5))


def test_the_window_moves_on_and_spikes_wait_aside() -> None:
    window = Window(values=(1.0, 2.0, 3.0)).with_value(4.0, window_steps=3)
    assert window == Window(values=(2.0, 3.0, 4.0))
    spiked = window.with_spike(50.0, level_steps=3).with_spike(60.0, level_steps=3)
    assert spiked == Window(values=(2.0, 3.0, 4.0), aside=(50.0, 60.0))
    assert spiked.with_value(5.0, window_steps=3) == Window(values=(3.0, 4.0, 5.0))
    assert spiked.with_spike(70.0, level_steps=3) == Window(values=(50.0, 60.0, 70.0))
