"""GLM's attention against PyTorch's causal flash attention of equal FLOPs, as ratio of FLOP rates.

    python benchmarks/attention.py                                # GLM-130B's heads in bf16, on the GPU if there is one
    python benchmarks/attention.py --device cpu --heads 8 --repeats 5 --dtype fp32

Forward and backward. Both run in turns, so that what slows the machine slows both. The reference for a row of ``n``
samples is a batch of ``n`` causal sequences, each of a length that needs as many FLOPs as a sample.
"""

import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from machine import describe_machine, now
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from glm130b.config.model import ModelConfig
from glm130b.config.sections import KernelsConfig
from glm130b.model.kernels import choose_kernels
from glm130b.model.segments import PackedSegments
from glm130b.model.transformer_config import DTYPES

Row = list[tuple[int, int, int]]
"""(start, context length, target length) of every sample."""


def rows(length: int) -> dict[str, Row]:
    """What fills a row of the run: one [gMASK] sample, four [MASK] samples with 15 % of the text in blanks, or text."""
    half, quarter, blanks = length // 2, length // 4, length // 4 // 6
    return {
        "one [gMASK], half target": [(0, half, length - half)],
        "four [MASK]": [(quarter * i, quarter - blanks, blanks) for i in range(4)],
        "causal": [(0, 0, length)],
    }


def visible_pairs(row: Row) -> int:
    """Pairs of a query and a key that it sees."""
    return sum(context * context + target * context + target * (target + 1) // 2 for _, context, target in row)


def main() -> None:
    options = _options()
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    model = ModelConfig.model_validate(
        {
            "num_layers": 1,
            "hidden_size": options.heads * options.head_dim,
            "num_attention_heads": options.heads,
            "ffn_hidden_size": 1,
            "vocab_size": 1,
            "embedding_gradient_shrink": {"alpha": {"start": 1.0, "end": 1.0}},
        }
    )
    kernels = choose_kernels(KernelsConfig(attention=options.kernel), model, dtype, device)
    print(f"machine: {describe_machine(device)}")
    print(
        f"attention {kernels.attention_name}, {options.dtype}, {options.heads} heads of {options.head_dim}, "
        f"rows of {options.sequence}, forward and backward, median of {options.repeats}"
    )
    print(f"{'row':<26} {'GFLOP':>8} {'ms':>9} {'TFLOP/s':>9} {'causal':>9} {'ratio':>6}")
    for name, row in rows(options.sequence).items():
        length = round((2 * visible_pairs(row) / len(row)) ** 0.5)  # length ** 2 / 2 pairs each
        causal = [(i * length, 0, length) for i in range(len(row))]
        ours = _glm_attention(kernels.attention, row, options, device, dtype)
        reference = _causal_attention(len(row), length, options, device, dtype)
        seconds, reference_seconds = _medians(ours, reference, options.repeats, device)
        # Two matrix products forward, five backward, where the scores are computed again.
        flops, reference_flops = (7 * 2 * visible_pairs(r) * options.heads * options.head_dim for r in (row, causal))
        rate, reference_rate = flops / seconds, reference_flops / reference_seconds
        print(
            f"{name:<26} {flops / 1e9:8.1f} {seconds * 1e3:9.3f} {rate / 1e12:9.3f} {reference_rate / 1e12:9.3f} "
            f"{rate / reference_rate:6.2f}"
        )


def _glm_attention(
    attention: Callable[..., Tensor], row: Row, options: Namespace, device: torch.device, dtype: torch.dtype
) -> Callable[[], object]:
    segments = PackedSegments([row])  # a micro-batch's, used by all layers
    shape = (options.sequence, 1, options.heads, options.head_dim)
    qkv = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
    upstream = torch.randn(options.sequence, 1, options.heads * options.head_dim, device=device, dtype=dtype)

    def run() -> object:
        mixed = attention(*qkv, segments, scale=options.head_dim**-0.5, dropout=0.0, slopes_N=None)
        return torch.autograd.grad(mixed, qkv, upstream)

    return run


def _causal_attention(
    batch: int, length: int, options: Namespace, device: torch.device, dtype: torch.dtype
) -> Callable[[], object]:
    shape = (batch, options.heads, length, options.head_dim)
    qkv = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
    upstream = torch.randn(shape, device=device, dtype=dtype)
    is_half = device.type == "cuda" and dtype != torch.float32

    def run() -> object:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION) if is_half else nullcontext():
            mixed = F.scaled_dot_product_attention(*qkv, is_causal=True)
        return torch.autograd.grad(mixed, qkv, upstream)

    return run


def _medians(
    ours: Callable[[], object], reference: Callable[[], object], repeats: int, device: torch.device
) -> tuple[float, float]:
    """Seconds of each, by turns, after two calls that warm up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 2):
        for run, taken in zip((ours, reference), seconds, strict=True):
            started = now(device)
            run()
            if turn >= 2:
                taken.append(now(device) - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def _options() -> Namespace:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--kernel", default="auto", help="as kernels.attention: auto, sdpa, varlen or flash_attn")
    parser.add_argument("--heads", type=int, default=96)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--sequence", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=30)
    return parser.parse_args()


if __name__ == "__main__":
    main()
