"""From tokens to the first hidden states: each table, the norm, dropout, the shrunk part, the cut sequence."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from tests.harness.pool import run_distributed
from tests.harness.stage import initial_chunk, scatter_parameters_
from tests.harness.synthetic import small_config

TOKENS_BS = torch.tensor([[5, 90, 5, 7], [0, 1, 2, 95]])
POSITIONS_B2S = torch.tensor([[[0, 1, 2, 2], [0, 0, 0, 1]], [[3, 6, 6, 6], [0, 1, 2, 3]]])
EVERYTHING = {"positions": "learned_2d", "max_positions": 7, "embedding_norm": True}
KINDS: dict[str, dict[str, Any]] = {
    "words": {},
    "alibi": {"positions": "alibi"},
    "learned": {"positions": "learned", "max_positions": 7},
    "learned_2d": {"positions": "learned_2d", "max_positions": 7},
    "words and norm": {"embedding_norm": True},
    "everything": EVERYTHING,
    "no biases": {**EVERYTHING, "biases": False},
}


def embedded(launch: Launch, config: RunConfig, alphas: list[float]) -> dict[str, Any]:
    """This rank's hidden states and gradients under each alpha, and its weights, which are alike on all ranks."""
    with initial_chunk(launch, config) as chunk:
        module = chunk.embedding
        scatter_parameters_(module)
        outputs, gradients = [], []
        for alpha in alphas:
            module.zero_grad()
            out_SBH = module(TOKENS_BS, POSITIONS_B2S, alpha)
            parts = upstream(config.model.hidden_size).split(len(out_SBH))
            (out_SBH * parts[launch.rank % len(parts)]).sum().backward()
            outputs.append(out_SBH.detach())
            gradients.append({name: p.grad.clone() for name, p in module.named_parameters()})
        weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        return {"outputs": outputs, "gradients": gradients, "weights": weights}


def upstream(hidden_size: int) -> Tensor:
    """What the layers would send back, [S, B, H]."""
    return torch.randn(4, 2, hidden_size, generator=torch.Generator().manual_seed(8))


def by_hand(weights: dict[str, Tensor]) -> Tensor:
    x_BSH = F.embedding(TOKENS_BS, weights["word.weight"])
    if "position.weight" in weights:
        x_BSH = x_BSH + F.embedding(POSITIONS_B2S[:, 0], weights["position.weight"])
    if "block_position.weight" in weights:
        x_BSH = x_BSH + F.embedding(POSITIONS_B2S[:, 1], weights["block_position.weight"])
    if "norm.weight" in weights:
        x_BSH = F.layer_norm(x_BSH, x_BSH.shape[-1:], weights["norm.weight"], weights.get("norm.bias"), eps=1e-5)
    return x_BSH.transpose(0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(kind: str) -> None:
    (out,) = run_distributed(embedded, 1, small_config(model=KINDS[kind]), [1.0])
    names = {"word.weight"}
    names |= {"position.weight"} if "learned" in KINDS[kind].get("positions", "") else set()
    names |= {"block_position.weight"} if KINDS[kind].get("positions") == "learned_2d" else set()
    if KINDS[kind].get("embedding_norm"):
        names |= {"norm.weight"} if kind == "no biases" else {"norm.weight", "norm.bias"}
    weights = {name: weight.requires_grad_() for name, weight in out["weights"].items()}
    assert weights.keys() == names

    expected_SBH = by_hand(weights)
    torch.testing.assert_close(out["outputs"][0], expected_SBH.detach(), atol=1e-5, rtol=1e-5)
    (expected_SBH * upstream(32)).sum().backward()
    for name, weight in weights.items():
        torch.testing.assert_close(out["gradients"][0][name], weight.grad, atol=1e-5, rtol=1e-4)


def test_the_shrink_touches_the_words_gradient_and_nothing_else() -> None:
    """Exactly: a power of two rounds nothing."""
    (out,) = run_distributed(embedded, 1, small_config(model=EVERYTHING), [1.0, 0.25])
    assert torch.equal(*out["outputs"])
    plain, shrunk = out["gradients"]
    assert torch.equal(shrunk.pop("word.weight"), 0.25 * plain.pop("word.weight"))
    assert set(plain) == {"position.weight", "block_position.weight", "norm.weight", "norm.bias"}
    assert all(gradient.any() and torch.equal(shrunk[name], gradient) for name, gradient in plain.items())


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_two_tensor_ranks(sequence_parallel: bool) -> None:
    """Words are cut by rows. Cut, each rank hands on half of the sequence, and the gradients of both halves reach
    every rank, so nothing here needs to be summed once more."""
    config = small_config(model=EVERYTHING, parallel={"tensor": 2, "sequence_parallel": sequence_parallel})
    ranks = run_distributed(embedded, 2, config, [1.0])
    weights = {**ranks[0]["weights"]}
    weights["word.weight"] = torch.cat([rank["weights"]["word.weight"] for rank in ranks])
    weights = {name: weight.requires_grad_() for name, weight in weights.items()}
    expected_SBH = by_hand(weights)
    (expected_SBH * upstream(32)).sum().backward()

    for rank, out in enumerate(ranks):
        half_SBH = expected_SBH.detach().chunk(2)[rank] if sequence_parallel else expected_SBH.detach()
        torch.testing.assert_close(out["outputs"][0], half_SBH, atol=1e-5, rtol=1e-5)
        for name, gradient in out["gradients"][0].items():
            whole = weights[name].grad
            expected = whole.chunk(2)[rank] if name == "word.weight" else whole
            torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)


def dropped(launch: Launch, config: RunConfig) -> tuple[float, float]:
    """Share of zeros among the hidden states in training, and the scale of the others."""
    with initial_chunk(launch, config) as chunk, torch.no_grad():
        module, inputs = chunk.embedding, (torch.arange(96).view(4, 24), torch.zeros(4, 2, 24, dtype=torch.int64))
        plain_SBH = module.word(inputs[0]).transpose(0, 1)
        training_SBH = module(*inputs, 1.0)
        kept = training_SBH != 0
        assert torch.equal(module.eval()(*inputs, 1.0), plain_SBH)
        return 1 - kept.float().mean().item(), (training_SBH[kept] / plain_SBH[kept]).mean().item()


def test_embeddings_are_dropped_in_training_only() -> None:
    ((zeros, scale),) = run_distributed(dropped, 1, small_config(model={"hidden_dropout": 0.25}))
    assert zeros == pytest.approx(0.25, abs=0.03)  # 3072 draws: four standard deviations
    assert scale == pytest.approx(1 / 0.75, rel=1e-4)
