"""All segments in two calls equal segment after segment, to the last bit where the kernel is the same."""

from typing import Any

import pytest
import torch
from torch import Tensor

from glm130b.model.attention_sdpa import attend_with_sdpa
from glm130b.model.attention_varlen import attend_with_varlen, put, take
from glm130b.model.segments import PackedSegments
from glm130b.model.varlen_kernels import adapt_varlen_attn, torch_varlen_kernel
from tests.harness.attention import LAYOUTS, D, N, S, plain_varlen_kernel, random_qkv

OPTIONS: dict[str, Any] = {"scale": D**-0.5, "dropout": 0.0, "slopes_N": None}


@pytest.mark.parametrize("key_value_heads", [N, 2, 1])
@pytest.mark.parametrize("others", [[], ["packed"], ["padding before, between and after", "one segment"]])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_gradients_equal_segment_after_segment(layout: str, others: list[str], key_value_heads: int) -> None:
    rows = [LAYOUTS[name] for name in (layout, *others)]
    qkv = random_qkv(len(rows), key_value_heads=key_value_heads)
    ours = attend_with_varlen(plain_varlen_kernel, *qkv, PackedSegments(rows), **OPTIONS)
    expected = attend_with_sdpa(*qkv, PackedSegments(rows), **OPTIONS)
    assert torch.equal(ours, expected)
    if not any(rows):
        return
    upstream = torch.randn(S, len(rows), N * D, generator=torch.Generator().manual_seed(6))
    for mine, reference in zip(
        torch.autograd.grad(ours, qkv, upstream), torch.autograd.grad(expected, qkv, upstream), strict=True
    ):
        # A key that both calls see gets two gradients, and grouped heads are summed; in whatever order.
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "causal"),
    [
        ([[(0, 6, 10)]], [False, True]),
        ([[(0, 0, 9)], [(2, 0, 3), (6, 0, 1)]], [True]),
        ([[(0, 9, 0)], [(2, 3, 0)]], [False]),
        ([[], []], []),
    ],
)
def test_a_call_without_queries_is_left_out(rows: list[list[tuple[int, int, int]]], causal: list[bool]) -> None:
    seen = []

    def kernel(*arguments: Any, causal: bool, **options: Any) -> Tensor:
        seen.append(causal)
        return plain_varlen_kernel(*arguments, causal=causal, **options)

    attend_with_varlen(kernel, *random_qkv(len(rows)), PackedSegments(rows), **OPTIONS)
    assert seen == causal


@pytest.mark.parametrize("row", [[(0, 0, 16)], [(0, 16, 0)], [(0, 6, 10)], [(3, 6, 4)]])
def test_a_row_of_one_segment_is_not_copied(row: list[tuple[int, int, int]]) -> None:
    qkv = random_qkv(num_rows=1)
    memory = {x.untyped_storage().data_ptr() for x in qkv}

    def kernel(*arguments: Any, **options: Any) -> Tensor:
        assert {x.untyped_storage().data_ptr() for x in arguments[:3]} == memory
        return plain_varlen_kernel(*arguments, **options)

    attend_with_varlen(kernel, *qkv, PackedSegments([row]), **OPTIONS)


def test_take_and_put_are_each_others_transpose() -> None:
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([4, 0, 3])
    assert torch.equal(take(x, tokens), x[tokens])
    placed = put(x[:3], tokens, num_tokens=6)
    assert torch.equal(placed[tokens], x[:3])
    assert not placed[[1, 2, 5]].any()
    assert torch.equal(put(x[:3], slice(2, 5), num_tokens=6)[2:5], x[:3])
    torch.autograd.gradcheck(lambda y: take(y, tokens), x)
    torch.autograd.gradcheck(lambda y: put(y, tokens, num_tokens=7), x[:3])


def varlen_attn_2_10(
    *qkv_and_lengths: Any, is_causal: bool = False, return_aux: None = None
) -> Tensor:  # the interfaces of PyTorch's function, by version
    query, key, *_ = qkv_and_lengths
    assert query.shape[1] == key.shape[1]
    return plain_varlen_kernel(*qkv_and_lengths, causal=is_causal, scale=query.shape[-1] ** -0.5, dropout=0.0)


def varlen_attn_2_11(
    *qkv_and_lengths: Any, return_aux: None = None, scale: float, window_size: tuple[int, int] = (-1, -1)
) -> Tensor:
    query, key, *_ = qkv_and_lengths
    assert query.shape[1] == key.shape[1]
    causal = {(-1, -1): False, (-1, 0): True}[window_size]
    return plain_varlen_kernel(*qkv_and_lengths, causal=causal, scale=scale, dropout=0.0)


def varlen_attn_2_12(
    *qkv_and_lengths: Any, scale: float, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False
) -> Tensor:
    query, key, *_ = qkv_and_lengths
    assert enable_gqa or query.shape[1] == key.shape[1]
    causal = {(-1, -1): False, (-1, 0): True}[window_size]
    return plain_varlen_kernel(*qkv_and_lengths, causal=causal, scale=scale, dropout=0.0)


@pytest.mark.parametrize("key_value_heads", [N, 2])
@pytest.mark.parametrize("varlen_attn", [varlen_attn_2_10, varlen_attn_2_11, varlen_attn_2_12])
def test_every_interface_of_pytorch_s_function_is_known(varlen_attn: Any, key_value_heads: int) -> None:
    rows = [LAYOUTS["packed"], LAYOUTS["one segment"]]
    qkv = random_qkv(len(rows), key_value_heads=key_value_heads)
    ours = attend_with_varlen(adapt_varlen_attn(varlen_attn), *qkv, PackedSegments(rows), **OPTIONS)
    assert torch.equal(ours, attend_with_sdpa(*qkv, PackedSegments(rows), **OPTIONS))


@pytest.mark.parametrize("causal", [False, True])
def test_the_installed_pytorch_takes_what_it_is_given(causal: bool) -> None:
    """Its kernel is for CUDA; on fake tensors the function itself runs, with its checks of arguments."""
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        query, key, bounds = torch.empty(8, N, D), torch.empty(8, 2, D), torch.empty(3, dtype=torch.int32)
        mixed = torch_varlen_kernel()(query, key, key, bounds, bounds, 4, 4, causal=causal, scale=D**-0.5, dropout=0.0)
    assert mixed.shape == (8, N, D)
