"""Two attention calls per segment against one softmax under the dense mask of the oracle."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.bias import causal_upper_left

from glm130b.model import attention_sdpa
from glm130b.model.alibi import alibi_slopes
from glm130b.model.attention_sdpa import attend_with_sdpa
from glm130b.model.segments import PackedSegments
from tests.harness.attention import LAYOUTS, D, N, S, Segments, dense, inside, random_qkv

attend = partial(attend_with_sdpa, scale=D**-0.5, dropout=0.0, slopes_N=None)


@pytest.mark.parametrize("key_value_heads", [N, 2, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_gradients_are_those_of_the_dense_mask(layout: str, key_value_heads: int) -> None:
    rows = [LAYOUTS[layout], LAYOUTS["one segment"]]  # two rows: neither may see the other
    qkv = random_qkv(num_rows=2, key_value_heads=key_value_heads)
    ours = attend(*qkv, PackedSegments(rows))
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
        ours = attend(*qkv, PackedSegments([segments]))
        torch.testing.assert_close(ours, dense(qkv, [segments]), atol=1e-5, rtol=1e-5)
        assert not ours[~inside([segments])].any()


@pytest.mark.parametrize(
    ("layout", "is_wrong"), [("one segment", True), ("one-token targets", True), ("no context", False)]
)
def test_a_triangle_aligned_top_left_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, layout: str, is_wrong: bool
) -> None:
    """`is_causal=True` raises nothing: only values tell. Without a context both triangles are the same."""
    monkeypatch.setattr(attention_sdpa, "causal_lower_right", causal_upper_left)
    qkv, rows = random_qkv(num_rows=1), [LAYOUTS[layout]]
    error = (attend(*qkv, PackedSegments(rows)) - dense(qkv, rows)).abs().max().item()
    assert error > 0.5 if is_wrong else error < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("layout", ["one segment", "packed", "padding before, between and after"])
def test_half_precision_stays_close(layout: str, dtype: torch.dtype, tolerance: float) -> None:
    """A few roundings (2**-11 and 2**-8) of values of size two."""
    rows, qkv = [LAYOUTS[layout]], random_qkv(num_rows=1, dtype=dtype)
    ours = attend(*qkv, PackedSegments(rows))
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), dense([x.float() for x in qkv], rows), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_alibi_penalises_distance_between_positions(layout: str, dtype: torch.dtype) -> None:
    """Positions that repeat and go back, as those of blanks do: the distance is not that of the tokens."""
    rows = [LAYOUTS[layout], LAYOUTS["packed"]]
    positions_BS = torch.randint(S, (2, S), generator=torch.Generator().manual_seed(1))
    qkv, slopes_N = random_qkv(num_rows=2, dtype=dtype, key_value_heads=2), alibi_slopes(N)
    ours = attend(*qkv, PackedSegments(rows, positions_BS=positions_BS), slopes_N=slopes_N)

    distance_BSS = (positions_BS[:, :, None] - positions_BS[:, None, :]).abs()
    expected = dense([x.float() for x in qkv], rows, bias_BNSS=-slopes_N[:, None, None] * distance_BSS[:, None])
    tolerance = 1e-5 if dtype == torch.float32 else 8e-2  # bf16 rounds a bias of 4 by 2**-7
    torch.testing.assert_close(ours.float(), expected, atol=tolerance, rtol=tolerance)
    (ours.sum()).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in qkv)


def test_the_scale_is_the_callers() -> None:
    qkv, rows = random_qkv(num_rows=1), [LAYOUTS["packed"]]
    ours = attend(*qkv, PackedSegments(rows), scale=0.125)
    torch.testing.assert_close(ours, dense(qkv, rows, scale=0.125), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, dense(qkv, rows), atol=1e-2)
