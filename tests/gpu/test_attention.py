"""The flash kernels on the GPU against PyTorch's attention, segment by segment, in fp32."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from glm130b.model.attention_sdpa import attend_with_sdpa
from glm130b.model.attention_varlen import attend_with_varlen
from glm130b.model.segments import PackedSegments
from glm130b.model.varlen_kernels import VarlenKernel, flash_attn_kernel, torch_varlen_kernel

pytestmark = pytest.mark.gpu

S, N, D = 512, 8, 128
SCALE = D**-0.5
ROWS = {
    "one segment": [[(0, 200, 312)]],
    "packed": [[(0, 100, 28), (128, 90, 38), (256, 127, 1), (384, 0, 128)]],
    "padding, two rows": [[(3, 100, 150), (300, 64, 0)], [(0, 1, 300), (400, 50, 7)]],
    "causal": [[(0, 0, 512)]],
    "contexts": [[(0, 256, 0), (256, 200, 0)]],
}
KERNELS: dict[str, Callable[[], VarlenKernel]] = {"varlen": torch_varlen_kernel, "flash_attn": flash_attn_kernel}

Attention = Callable[..., Tensor]


@pytest.fixture(params=KERNELS)
def attention(request: pytest.FixtureRequest) -> Attention:
    if request.param == "flash_attn" and find_spec("flash_attn") is None:
        pytest.skip("needs the package flash-attn")
    return partial(attend_with_varlen, KERNELS[request.param](), scale=SCALE, dropout=0.0, slopes_N=None)


def inputs(num_rows: int, key_value_heads: int, dtype: torch.dtype) -> list[Tensor]:
    """Query, key, value and the gradient of the output."""
    generator = torch.Generator().manual_seed(4)
    shapes = [(S, num_rows, heads, D) for heads in (N, key_value_heads, key_value_heads)] + [(S, num_rows, N * D)]
    return [torch.randn(shape, generator=generator).to("cuda", dtype) for shape in shapes]


def values_and_gradients(attend: Attention, tensors: list[Tensor], segments: PackedSegments) -> list[Tensor]:
    *qkv, upstream = tensors
    qkv = [x.detach().requires_grad_() for x in qkv]
    mixed = attend(*qkv, segments)
    mixed.backward(upstream)
    return [mixed.detach(), *(x.grad for x in qkv if x.grad is not None)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("key_value_heads", [N, 2, 1])
@pytest.mark.parametrize("rows", ROWS)
def test_values_and_gradients(attention: Attention, rows: str, key_value_heads: int, dtype: torch.dtype) -> None:
    """A value is a mean of values under rounded probabilities, itself rounded: an error of two unit roundoffs of the
    largest value. A gradient passes through four roundings (probabilities, output, scores' gradient, itself), so its
    error has at most four unit roundoffs of its norm. (With SDPA in bf16 on a CPU: 0.5, and 0.6 to 1.3.)"""
    segments = PackedSegments(ROWS[rows])
    tensors = inputs(len(ROWS[rows]), key_value_heads, dtype)
    exact = partial(attend_with_sdpa, scale=SCALE, dropout=0.0, slopes_N=None)
    mixed, *gradients = values_and_gradients(attention, tensors, segments)
    expected, *expected_gradients = values_and_gradients(exact, [x.float() for x in tensors], segments)

    roundoff = torch.finfo(dtype).eps / 2
    assert mixed.dtype == dtype
    assert (mixed.float() - expected).abs().max() <= 2 * roundoff * tensors[2].float().abs().max()
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        assert (ours.float() - theirs).norm() <= 4 * roundoff * theirs.norm()


@pytest.mark.parametrize("rows", ROWS)
def test_recomputation_repeats_it(attention: Attention, rows: str) -> None:
    """To the last bit forward; backward, where sums are atomic, up to their order."""
    segments = PackedSegments(ROWS[rows])
    tensors = inputs(len(ROWS[rows]), N, torch.bfloat16)
    again = partial(checkpoint, attention, use_reentrant=True)
    mixed, *gradients = values_and_gradients(attention, tensors, segments)
    repeated, *repeated_gradients = values_and_gradients(again, tensors, segments)
    assert torch.equal(mixed, repeated)
    for once, twice in zip(gradients, repeated_gradients, strict=True):
        assert (once.float() - twice.float()).norm() <= 2**-8 * once.float().norm()


@pytest.mark.skipif(find_spec("flash_attn") is None, reason="needs the package flash-attn")
def test_dropout_repeats_under_recomputation() -> None:
    attend = partial(attend_with_varlen, flash_attn_kernel(), scale=SCALE, dropout=0.3, slopes_N=None)
    segments, tensors = PackedSegments(ROWS["packed"]), inputs(1, N, torch.bfloat16)
    results = []
    for run in (attend, attend, partial(checkpoint, attend, use_reentrant=True)):
        torch.manual_seed(1 if results else 2)
        results.append(values_and_gradients(run, tensors, segments))
    other, plain, recomputed = results
    assert not torch.equal(other[0], plain[0])
    assert torch.equal(plain[0], recomputed[0])
    for once, twice in zip(plain, recomputed, strict=True):
        assert (once.float() - twice.float()).norm() <= 2**-8 * once.float().norm()


def test_nobody_waits_for_the_packing() -> None:
    with torch.cuda.device(0):
        segments = PackedSegments(ROWS["packed"])
        torch.cuda.set_sync_debug_mode("error")
        try:
            segments.packing(torch.device("cuda", 0))
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", ROWS)
def test_sdpa_on_the_gpu_is_sdpa_on_the_cpu(rows: str, dtype: torch.dtype) -> None:
    """It takes other backends there, with a triangle of their own."""
    segments = PackedSegments(ROWS[rows])
    tensors = inputs(len(ROWS[rows]), 2, dtype)
    attend = partial(attend_with_sdpa, scale=SCALE, dropout=0.0, slopes_N=None)
    roundoff = torch.finfo(dtype).eps / 2 if dtype != torch.float32 else 2**-11  # TF32 keeps ten bits
    ours = values_and_gradients(attend, tensors, segments)
    expected = values_and_gradients(attend, [x.cpu().float() for x in tensors], segments)
    for gpu, cpu in zip(ours, expected, strict=True):
        assert (gpu.cpu().float() - cpu).norm() <= 8 * roundoff * cpu.norm()
