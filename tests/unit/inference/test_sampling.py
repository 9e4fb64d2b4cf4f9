"""From logits to a token."""

from collections import Counter

import pytest
import torch

from glm130b.inference.sampling import Sampling, next_token

LOGITS_V = torch.tensor([0.0, 2.0, 1.0, -1.0, -torch.inf])


def draws(sampling: Sampling, count: int = 4000) -> Counter[int]:
    generator = sampling.generator()
    return Counter(next_token(LOGITS_V, sampling, generator) for _ in range(count))


def test_temperature_0_is_greedy() -> None:
    assert draws(Sampling(), 20) == {1: 20}
    assert draws(Sampling(top_k=3, seed=5), 20) == {1: 20}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_the_softmax_says(temperature: float) -> None:
    counts = draws(Sampling(temperature=temperature))
    expected = (LOGITS_V / temperature).softmax(dim=0).tolist()
    assert [counts[token] / 4000 for token in range(5)] == pytest.approx(expected, abs=0.03)
    assert counts[4] == 0  # -inf never comes


def test_top_k_draws_from_the_most_likely_only() -> None:
    counts = draws(Sampling(temperature=1.0, top_k=2))
    assert set(counts) == {1, 2}
    assert counts[2] / 4000 == pytest.approx(torch.tensor([2.0, 1.0]).softmax(dim=0)[1].item(), abs=0.03)
    assert draws(Sampling(temperature=1.0, top_k=1), 50) == {1: 50}


@pytest.mark.parametrize("top_k", [0, 5, 100])
def test_top_k_of_everything_changes_nothing(top_k: int) -> None:
    assert draws(Sampling(temperature=1.0, top_k=top_k)) == draws(Sampling(temperature=1.0))


def test_the_seed_fixes_the_draws() -> None:
    def sequence(seed: int) -> list[int]:
        sampling = Sampling(temperature=1.0, seed=seed)
        generator = sampling.generator()
        return [next_token(LOGITS_V, sampling, generator) for _ in range(50)]

    assert sequence(1) == sequence(1)
    assert sequence(1) != sequence(2)


def test_logits_in_half_precision_are_left_as_they_are() -> None:
    logits_V = LOGITS_V.half()
    assert next_token(logits_V, Sampling(temperature=0.7, top_k=1), Sampling().generator()) == 1
    assert torch.equal(logits_V, LOGITS_V.half())
