"""The table of angles by its formula, in fp32 and as the original rounded it; and the turn that it makes."""

import cmath
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from glm130b.model.rotary import RotaryTable, rotary_table


def table(
    positions_BAS: Tensor,
    *,
    head_dim: int = 8,
    base: float = 10000.0,
    table_dtype: torch.dtype = torch.float32,
    dtype: torch.dtype = torch.float32,
) -> RotaryTable:
    return rotary_table(positions_BAS, head_dim=head_dim, base=base, table_dtype=table_dtype, dtype=dtype)


def turned_by_hand(x: list[float], position: int, base: float) -> list[float]:
    """Dimensions (i, i + D/2) as one complex number, turned by ``position * base ** (-2 i / D)`` (RoFormer, eq. 15)."""
    half = len(x) // 2
    turned = [complex(x[i], x[i + half]) * cmath.exp(1j * position * base ** (-i / half)) for i in range(half)]
    return [z.real for z in turned] + [z.imag for z in turned]


def random_head(head_dim: int) -> Tensor:
    return torch.randn(1, 1, 1, head_dim, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("base", [10000.0, 500.0])
@pytest.mark.parametrize("position", [0, 1, 7, 2047])
def test_one_axis_turns_the_whole_head(position: int, base: float) -> None:
    x_SBND = random_head(12)
    turned = table(torch.tensor([[[position]]]), head_dim=12, base=base).rotate(x_SBND)
    expected = turned_by_hand(x_SBND.flatten().tolist(), position, base)
    assert turned.flatten().tolist() == pytest.approx(expected, abs=2e-4 if position > 1000 else 2e-6)


@pytest.mark.parametrize(("position", "block"), [(0, 0), (5, 0), (0, 3), (9, 4)])
def test_two_axes_turn_half_a_head_each(position: int, block: int) -> None:
    """ChatGLM-6B: each half is rotated like a head of half the width, with the frequencies of one."""
    x_SBND = random_head(16)
    turned = table(torch.tensor([[[position], [block]]]), head_dim=16).rotate(x_SBND).flatten().tolist()
    x = x_SBND.flatten().tolist()
    expected = turned_by_hand(x[:8], position, 10000.0) + turned_by_hand(x[8:], block, 10000.0)
    assert turned == pytest.approx(expected, abs=2e-6)


def test_the_second_axis_is_not_read_by_a_table_of_one() -> None:
    positions_B2S = torch.tensor([[[3, 3], [1, 2]]])
    one = table(positions_B2S[:, :1])
    assert torch.equal(one.cos[0], one.cos[1])
    two = table(positions_B2S)
    assert torch.equal(two.cos[0, ..., 0, :], two.cos[1, ..., 0, :])
    assert not torch.equal(two.cos[0, ..., 1, :], two.cos[1, ..., 1, :])


def test_every_token_of_every_row_has_its_own_position() -> None:
    """Rows differ, and a blank's position repeats over all tokens of its target."""
    positions_BS = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 1, 1, 7]])
    whole = table(positions_BS[:, None])
    assert whole.cos.shape == whole.sin.shape == (5, 2, 1, 1, 8)
    for row in range(2):
        for token in range(5):
            alone = table(positions_BS[row, token].view(1, 1, 1))
            assert torch.equal(whole.cos[token, row], alone.cos[0, 0])
            assert torch.equal(whole.sin[token, row], alone.sin[0, 0])
    assert torch.equal(whole.cos[1, 1], whole.cos[3, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_heads_keep_their_dtype_and_their_length(dtype: torch.dtype) -> None:
    x_SBND = torch.randn(4, 2, 3, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    turned = table(torch.arange(4).expand(2, 1, 4), dtype=dtype).rotate(x_SBND)
    assert turned.dtype == dtype
    assert turned.shape == x_SBND.shape
    lengths = (turned.double().norm(dim=-1), x_SBND.double().norm(dim=-1))
    torch.testing.assert_close(*lengths, atol=0, rtol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_fp32_whatever_the_surroundings(default: torch.dtype) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        plain = table(torch.arange(5)[None, None])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = table(torch.arange(5)[None, None])
    finally:
        torch.set_default_dtype(before)
    assert plain.cos.dtype == cast.cos.dtype == torch.float32
    assert torch.equal(plain.cos, cast.cos)


def rounded_angles(position: int, head_dim: int) -> np.ndarray:
    """The original's: frequency, position and their product in fp16."""
    frequencies = 1.0 / 10000.0 ** (np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim))
    return np.float16(position) * frequencies.astype(np.float16)


@pytest.mark.parametrize("position", [1, 100, 2047])
def test_an_fp16_table_rounds_every_step(position: int) -> None:
    angles = rounded_angles(position, 128).astype(np.float64)
    ours = table(torch.tensor([[[position]]]), head_dim=128, table_dtype=torch.float16)
    assert ours.cos.dtype == torch.float32  # to be multiplied with
    for found, exact in ((ours.cos, np.cos(angles)), (ours.sin, np.sin(angles))):
        # Cosine and sine are themselves rounded to fp16: half a unit in the last place at 1.
        assert torch.equal(found, found.half().float())
        assert found.flatten()[:64].tolist() == pytest.approx(exact.tolist(), abs=2.0**-11)
        assert torch.equal(found.flatten()[:64], found.flatten()[64:])


def test_an_fp16_table_is_another_table() -> None:
    """Far from the start the two part, so weights fit one of them only."""
    positions = torch.tensor([[[2047]]])
    fp16, fp32 = (table(positions, head_dim=128, table_dtype=d) for d in (torch.float16, torch.float32))
    assert (fp16.cos - fp32.cos).abs().max() > 0.2


def test_large_positions_stay_apart_in_fp32_only() -> None:
    """fp16 takes 2049 for 2048."""
    positions = torch.tensor([[[2048, 2049]]])
    for dtype, is_same in ((torch.float16, True), (torch.float32, False)):
        cos_S = table(positions, table_dtype=dtype).cos
        assert torch.equal(cos_S[0], cos_S[1]) is is_same
    assert table(positions).cos[1].flatten()[0].item() == pytest.approx(math.cos(2049), abs=1e-6)
