"""Two attention calls per segment against one softmax under the dense mask of the oracle."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.bias import causal_upper_left

from glm130b.config.sections import RunConfig
from glm130b.launcher import Launch
from glm130b.model import attention
from glm130b.model.attention import PackedSegments, PrefixAttention
from glm130b.model.transformer_config import transformer_config
from glm130b.parallel.topology import seed_dropout
from tests.harness.pool import run_distributed
from tests.harness.reference_glm import visibility
from tests.harness.stage import joined
from tests.harness.synthetic import small_config

Segments = list[tuple[int, int, int]]

S, N, D = 16, 4, 8  # small_config has four heads of eight
LAYOUTS: dict[str, Segments] = {
    "one segment": [(0, 6, 10)],
    "packed": [(0, 5, 3), (8, 2, 6)],
    "no context": [(0, 0, 16)],
    "no target": [(0, 16, 0)],
    "one-token targets": [(0, 7, 1), (8, 7, 1)],
    "one-token contexts": [(0, 1, 7), (8, 1, 7)],
    "padding before, between and after": [(1, 3, 2), (8, 2, 4)],
    "one token": [(3, 0, 1), (9, 1, 0)],
    "nothing but padding": [],
}


def build(**model: float) -> PrefixAttention:
    config = small_config(model=model)
    return PrefixAttention(config=transformer_config(config.model, config.parallel, config.precision))


def random_qkv(num_rows: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [(2 * torch.randn(S, num_rows, N, D, generator=generator)).to(dtype).requires_grad_() for _ in range(3)]


def dense(qkv_SBND: Sequence[Tensor], rows: Sequence[Segments], scale: float = D**-0.5) -> Tensor:
    """[S, B, N * D] by the definition, in the dtype of the inputs; padding is zero."""
    query, key, value = qkv_SBND
    scores_BNSS = torch.einsum("qbnd,kbnd->bnqk", query, key) * scale
    scores_BNSS = scores_BNSS.masked_fill(~visibility(rows, S)[:, None], float("-inf"))
    mixed_SBH = torch.einsum("bnqk,kbnd->qbnd", scores_BNSS.softmax(dim=-1), value).flatten(2)
    return mixed_SBH * inside(rows)[..., None].to(mixed_SBH.dtype)


def inside(rows: Sequence[Segments]) -> Tensor:
    """bool [S, B]: the token belongs to a segment."""
    belongs_SB = torch.zeros(S, len(rows), dtype=torch.bool)
    for row, segments in enumerate(rows):
        for start, context, target in segments:
            belongs_SB[start : start + context + target, row] = True
    return belongs_SB


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_gradients_are_those_of_the_dense_mask(layout: str) -> None:
    rows = [LAYOUTS[layout], LAYOUTS["one segment"]]  # two rows: neither may see the other
    qkv = random_qkv(num_rows=2)
    ours = build()(*qkv, packed_seq_params=PackedSegments(rows))
    expected = dense(qkv, rows)
    assert ours.shape == (S, 2, N * D)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)

    upstream = torch.randn(S, 2, N * D, generator=torch.Generator().manual_seed(6))
    for name, mine, reference in zip(
        "qkv", torch.autograd.grad(ours, qkv, upstream), torch.autograd.grad(expected, qkv, upstream), strict=True
    ):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
        assert not mine[~inside(rows)].any()


@st.composite
def packings(draw: st.DrawFn) -> Segments:
    """Any segments that fit a row, with any gaps."""
    segments, start = [], 0
    while start < S and draw(st.booleans()):
        start += draw(st.integers(0, 3))
        context = draw(st.integers(0, max(0, S - start)))
        target = draw(st.integers(0, max(0, S - start - context)))
        if context + target:
            segments.append((start, context, target))
        start += context + target
    return segments


@given(packings())
@settings(max_examples=40)
def test_any_packing(segments: Segments) -> None:
    with torch.no_grad():
        qkv = random_qkv(num_rows=1)
        ours = build()(*qkv, packed_seq_params=PackedSegments([segments]))
        torch.testing.assert_close(ours, dense(qkv, [segments]), atol=1e-5, rtol=1e-5)
        assert not ours[~inside([segments])].any()


@pytest.mark.parametrize(
    ("layout", "is_wrong"), [("one segment", True), ("one-token targets", True), ("no context", False)]
)
def test_a_triangle_aligned_top_left_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, layout: str, is_wrong: bool
) -> None:
    """`is_causal=True` raises nothing: only values tell. Without a context both triangles are the same."""
    monkeypatch.setattr(attention, "causal_lower_right", causal_upper_left)
    qkv, rows = random_qkv(num_rows=1), [LAYOUTS[layout]]
    error = (build()(*qkv, packed_seq_params=PackedSegments(rows)) - dense(qkv, rows)).abs().max().item()
    assert error > 0.5 if is_wrong else error < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("layout", ["one segment", "packed", "padding before, between and after"])
def test_half_precision_stays_close(layout: str, dtype: torch.dtype, tolerance: float) -> None:
    """A few roundings (2**-11 and 2**-8) of values of size two."""
    rows, qkv = [LAYOUTS[layout]], random_qkv(num_rows=1, dtype=dtype)
    ours = build()(*qkv, packed_seq_params=PackedSegments(rows))
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), dense([x.float() for x in qkv], rows), atol=tolerance, rtol=tolerance)


def test_the_scale_can_be_given() -> None:
    config = small_config()
    given_scale = PrefixAttention(
        transformer_config(config.model, config.parallel, config.precision), softmax_scale=0.125, layer_number=3
    )
    qkv, rows = random_qkv(num_rows=1), [LAYOUTS["packed"]]
    ours = given_scale(*qkv, packed_seq_params=PackedSegments(rows))
    torch.testing.assert_close(ours, dense(qkv, rows, scale=0.125), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, dense(qkv, rows), atol=1e-2)


def test_dropout_is_for_training_only() -> None:
    qkv, rows = random_qkv(num_rows=1), [LAYOUTS["packed"]]
    ours = build(attention_dropout=0.5).eval()(*qkv, packed_seq_params=PackedSegments(rows))
    torch.testing.assert_close(ours, dense(qkv, rows), atol=1e-5, rtol=1e-5)


def dropped_out(launch: Launch, config: RunConfig, seeds: list[int]) -> list[Tensor]:
    """One training forward after each seed."""
    with joined(launch, config) as topology, torch.no_grad():
        module = build(attention_dropout=0.5)
        answers = []
        for seed in seeds:
            seed_dropout(seed, topology)
            before = torch.get_rng_state()
            answers.append(module(*random_qkv(num_rows=1), packed_seq_params=PackedSegments([LAYOUTS["packed"]])))
            # The stream of replicated activations is left where it was, or the ranks' streams would part.
            assert torch.equal(torch.get_rng_state(), before)
        return answers


def test_dropout_follows_the_seed_and_differs_between_tensor_ranks() -> None:
    config = small_config(parallel={"tensor": 2})
    (first, again, other), (other_heads, *_) = run_distributed(dropped_out, 2, config, [1, 1, 2])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, other_heads)
    plain = dense(random_qkv(num_rows=1), [LAYOUTS["packed"]])
    assert not torch.allclose(first, plain, atol=0.1)
