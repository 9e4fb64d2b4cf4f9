"""The angle table: values by hand, always fp32, positions that repeat and positions that are large."""

import math

import pytest
import torch

from glm130b.model.rotary import rotary_angles


@pytest.mark.parametrize("position", [0, 1, 7, 2047, 100_000])
def test_angles_by_hand(position: int) -> None:
    angles = rotary_angles(torch.tensor([[position]]), head_dim=6, base=10000.0)
    frequencies = [1.0, 10000.0 ** (-2 / 6), 10000.0 ** (-4 / 6)]
    expected = [position * frequency for frequency in frequencies] * 2
    assert angles.shape == (1, 1, 1, 6)
    assert angles.flatten().tolist() == pytest.approx(expected, rel=3e-7)


def test_another_base() -> None:
    assert rotary_angles(torch.tensor([[3]]), head_dim=4, base=16.0).flatten().tolist() == [3.0, 0.75, 3.0, 0.75]


@pytest.mark.parametrize("positions_dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_fp32_whatever_the_surroundings(positions_dtype: torch.dtype, default: torch.dtype) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        angles = rotary_angles(torch.arange(5, dtype=positions_dtype)[None], head_dim=8, base=10000.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = rotary_angles(torch.arange(5, dtype=positions_dtype)[None], head_dim=8, base=10000.0)
    finally:
        torch.set_default_dtype(before)
    assert angles.dtype == cast.dtype == torch.float32
    assert torch.equal(angles, cast)


def test_large_positions_stay_apart() -> None:
    """In fp16, 2049 would be 2048; in fp32 positions are exact up to 2**24."""
    positions = torch.tensor([[2048, 2049, 2**24 - 1, 2**24]])
    first_angles = rotary_angles(positions, head_dim=4, base=10000.0)[:, 0, 0, 0]
    assert first_angles.tolist() == positions[0].tolist()


def test_every_token_has_its_own_position() -> None:
    """Rows differ, and a blank's position repeats over all tokens of its target."""
    positions_BS = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 1, 1, 7]])
    angles_SB1D = rotary_angles(positions_BS, head_dim=4, base=10000.0)
    assert angles_SB1D.shape == (5, 2, 1, 4)
    assert torch.equal(angles_SB1D[1, 1], angles_SB1D[2, 1])
    assert torch.equal(angles_SB1D[1, 1], angles_SB1D[1, 0])
    assert angles_SB1D[4, :, 0, 0].tolist() == [4.0, 7.0]
    for row in range(2):
        for token in range(5):
            alone = rotary_angles(positions_BS[row, token].view(1, 1), head_dim=4, base=10000.0)
            assert torch.equal(angles_SB1D[token, row], alone[0, 0])


def test_halves_turn_together() -> None:
    """Dimension i and i + D/2 share an angle, so that a quarter turn moves one onto the other."""
    angles = rotary_angles(torch.tensor([[5]]), head_dim=16, base=10000.0).flatten()
    assert torch.equal(angles[:8], angles[8:])
    assert angles[0].item() == 5.0
    assert angles[7].item() == pytest.approx(5.0 * math.exp(-math.log(10000.0) * 14 / 16), rel=1e-6)
