"""Dropout draws from the right random streams: seen in the masks that the real modules make in real steps, and in
recomputed steps that are the same to the last bit."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from megatron.core.fusions import fused_bias_dropout
from torch import Tensor, nn

from glm130b.config.sections import RunConfig
from glm130b.data.objectives.row import Row
from glm130b.environment import Launch
from glm130b.model import embedding
from glm130b.model.kernels import AttentionKernel
from glm130b.model.segments import PackedSegments
from glm130b.model.stage import Stage
from glm130b.parallel.topology import disconnect, seed_dropout
from glm130b.training.progress import Progress
from tests.harness.pool import run_distributed
from tests.harness.synthetic import SyntheticRows, small_config
from tests.harness.training import live_run

P = 0.5
"""At one half two independent masks agree on half of their elements, so any other share tells."""
STEPS = (0, 8, 0)
"""First samples of the steps that are observed: a step, the next, the first again."""


class Draw(NamedTuple):
    """Where a mask was drawn."""

    step: int
    place: str
    """``embedding``, ``<layer>/attention``, ``<layer>/hidden``."""
    turn: int
    """How often that place had drawn before in this step: a layer's hidden states twice for each micro-batch."""

    @property
    def is_attention(self) -> bool:
        return self.place.endswith("attention")


class Drawn(NamedTuple):
    """One rank's place in the grid, and what was kept, as flat bool tensors."""

    tensor: int
    data: int
    pipeline: int
    masks: dict[Draw, Tensor]


class Recorder:
    """Sees what every dropout of a stage keeps."""

    def __init__(self) -> None:
        self.masks: dict[Draw, Tensor] = {}
        self._step = 0
        self._where = ""
        self._counts: Counter[str] = Counter()

    def begin_step(self, index: int) -> None:
        self._step, self._counts = index, Counter()

    @contextmanager
    def watching(self, stage: Stage) -> Iterator[None]:
        """Hooks say which module is at work; dropout and the attention kernel are wrapped."""
        with pytest.MonkeyPatch.context() as patch:
            for chunk in stage:
                if chunk.first_stage:
                    chunk.embedding.register_forward_pre_hook(self._enters("embedding"))
                for layer in chunk.decoder.layers:
                    layer.register_forward_pre_hook(self._enters(str(layer.layer_number)))
                    core = layer.self_attention.core_attention
                    patch.setattr(core, "kernel", self._attention(core.kernel))
            plain = nn.functional.dropout
            patch.setattr(embedding, "dropout", self._hidden(plain))
            patch.setattr(fused_bias_dropout.torch.nn.functional, "dropout", self._hidden(plain))
            yield

    def _enters(self, where: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._where = where

        return hook

    def _hidden(self, real: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def dropout(x: Tensor, **options: Any) -> Tensor:
            place = self._where if self._where == "embedding" else f"{self._where}/hidden"
            self._keep(place, lambda: real(torch.ones_like(x), **options) > 0)
            return real(x, **options)

        return dropout

    def _attention(self, real: AttentionKernel) -> Callable[..., Tensor]:
        def kernel(
            query_SBND: Tensor, key_SBGD: Tensor, value_SBGD: Tensor, segments: PackedSegments, **options: Any
        ) -> Tensor:
            self._keep(f"{self._where}/attention", lambda: kept_weights(real, query_SBND, segments, **options))
            return real(query_SBND, key_SBGD, value_SBGD, segments, **options)

        return kernel

    def _keep(self, place: str, probe: Callable[[], Tensor]) -> None:
        """What a probe keeps that draws what the module is about to draw."""
        state = torch.get_rng_state()
        self.masks[Draw(self._step, place, self._counts[place])] = probe().detach().flatten()
        torch.set_rng_state(state)
        self._counts[place] += 1


@torch.no_grad()
def kept_weights(kernel: AttentionKernel, query_SBND: Tensor, segments: PackedSegments, **options: Any) -> Tensor:
    """Which of the visible keys each query keeps: with equal scores and one-hot values, outputs are the weights."""
    length, rows, heads, _ = query_SBND.shape
    scores = torch.zeros(length, rows, heads, length)
    one_hot = torch.eye(length)[:, None, None].expand_as(scores)
    dropped = kernel(scores, scores, one_hot, segments, **options)
    weights = kernel(scores, scores, one_hot, segments, **{**options, "dropout": 0.0})
    return dropped[weights > 0] > 0


class ContinuedRows(SyntheticRows):
    """Rows of one shape of segments, so that all masks have one length."""

    def __getitem__(self, sample_index: int) -> Row:
        return super().__getitem__(4 * sample_index)


def drawn(launch: Launch, config: RunConfig) -> Drawn:
    """The masks of the observed steps."""
    run, recorder = live_run(config, launch, ContinuedRows()), Recorder()
    with recorder.watching(run.stage):
        for index, samples in enumerate(STEPS):
            recorder.begin_step(index)
            run.stepper.step(Progress(samples=samples))
    disconnect()
    topology = run.topology
    return Drawn(topology.tensor.rank, topology.data.rank, topology.pipeline.rank, recorder.masks)


def observe(**parallel: Any) -> list[Drawn]:
    config = small_config(model={"attention_dropout": P, "hidden_dropout": P}, parallel=parallel)
    return run_distributed(drawn, parallel["tensor"] * parallel["pipeline"] * parallel["data"], config)


@pytest.fixture(scope="module")
def replicated() -> list[Drawn]:
    """Every rank of a tensor group holds all tokens."""
    return observe(tensor=2, pipeline=2, data=2)


@pytest.fixture(scope="module")
def split() -> list[Drawn]:
    """Every rank of a tensor group holds its own part of the sequence; stages of two chunks."""
    return observe(tensor=2, pipeline=2, data=1, virtual_stages=2, sequence_parallel=True)


@pytest.fixture(params=["replicated", "split"])
def ranks(request: pytest.FixtureRequest) -> list[Drawn]:
    observed: list[Drawn] = request.getfixturevalue(request.param)
    return observed


def tensor_neighbours(ranks: list[Drawn]) -> list[tuple[Drawn, Drawn]]:
    pairs = [(first, second) for first, second in pairwise(ranks) if second.tensor == first.tensor + 1]
    assert len(pairs) == len(ranks) // 2
    return pairs


def test_every_dropout_was_seen(ranks: list[Drawn]) -> None:
    """Two layers on every rank draw once in attention and twice in the hidden states for every micro-batch."""
    for rank in ranks:
        micro_batches = 2 if len(ranks) == 8 else 4
        layers = Counter(draw.place for draw in rank.masks)
        expected = 3 * micro_batches
        assert sorted(count for place, count in layers.items() if place.endswith("attention")) == [expected] * 2
        assert sorted(count for place, count in layers.items() if place.endswith("hidden")) == [2 * expected] * 2
        assert layers["embedding"] == (expected if rank.pipeline == 0 else 0)


def test_replicated_activations_have_one_mask(replicated: list[Drawn]) -> None:
    """Else the tensor ranks would go on with different activations, silently."""
    for first, second in tensor_neighbours(replicated):
        for draw, kept in first.masks.items():
            assert draw.is_attention or torch.equal(kept, second.masks[draw]), draw


def test_all_other_masks_are_independent(ranks: list[Drawn]) -> None:
    """Over layers, sublayers, micro-batches, steps, stages and replicas; over tensor ranks where they hold other heads
    or other tokens."""
    is_split = len(ranks) == 4
    masks = [
        kept
        for rank in ranks
        for draw, kept in rank.masks.items()
        if draw.step < 2 and (draw.is_attention or is_split or rank.tensor == 0)
    ]
    length = min(map(len, masks))
    signs = torch.stack([kept[:length] for kept in masks]).float() * 2 - 1
    correlations = (signs @ signs.T / length).fill_diagonal_(0.0)
    assert correlations.abs().max() < 6 / length**0.5


def test_the_same_step_draws_the_same_masks(ranks: list[Drawn]) -> None:
    for rank in ranks:
        again = [draw for draw in rank.masks if draw.step == 2]
        assert len(again) * 3 == len(rank.masks)
        for draw in again:
            assert torch.equal(rank.masks[draw], rank.masks[draw._replace(step=0)]), draw


@pytest.mark.parametrize("is_attention", [True, False])
def test_the_kept_share_is_the_configured_one(replicated: list[Drawn], is_attention: bool) -> None:
    kept = torch.cat(
        [
            mask
            for rank in replicated
            for draw, mask in rank.masks.items()
            if draw.is_attention is is_attention and draw.step < 2 and (is_attention or rank.tensor == 0)
        ]
    )
    five_sigma = 5 * (P * (1 - P) / len(kept)) ** 0.5
    assert five_sigma < 0.01
    assert kept.double().mean().item() == pytest.approx(1 - P, abs=five_sigma)


def three_steps(launch: Launch, config: RunConfig) -> tuple[list[float], list[Tensor]]:
    """Losses and gradient norms of two steps, and every gradient of a third."""
    run = live_run(config, launch)
    _, numbers = run.take_steps(2)
    seed_dropout(5, run.topology)
    run.accumulate_gradients()
    gradients = [run.engine.gradient_of(parameter).clone() for parameter in run.stage.parameters()]
    disconnect()
    return [step[name] for step in numbers for name in ("loss", "gradient_norm")], gradients


LAYOUTS: dict[str, dict[str, Any]] = {
    "TP2": {"tensor": 2},
    "TP2 SP": {"tensor": 2, "sequence_parallel": True},
    "PP2": {"pipeline": 2},
    "PP2, two virtual stages": {"pipeline": 2, "virtual_stages": 2},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_recomputation_draws_the_masks_again(layout: str) -> None:
    """Losses and every gradient are the same to the last bit, so every mask was."""
    model = {"attention_dropout": 0.1, "hidden_dropout": 0.1}
    none, selective, full = (
        run_distributed(three_steps, 2, small_config(model=model, parallel={**LAYOUTS[layout], "recompute": kind}))
        for kind in ("none", "selective", "full")
    )
    for recomputed in (selective, full):
        for (numbers, gradients), (expected_numbers, expected_gradients) in zip(recomputed, none, strict=True):
            assert numbers == expected_numbers
            assert all(map(torch.equal, gradients, expected_gradients))
