"""ALiBi's slopes and bias against the paper's numbers."""

import pytest
import torch

from glm130b.model.alibi import alibi_bias, alibi_slopes


@pytest.mark.parametrize(
    ("num_heads", "exponents"),
    [
        (1, [-8]),
        (2, [-4, -8]),
        (8, [-1, -2, -3, -4, -5, -6, -7, -8]),  # paper, section 3
        (16, [-i / 2 for i in range(1, 17)]),
        (6, [-2, -4, -6, -8, -1, -3]),
        (12, [-1, -2, -3, -4, -5, -6, -7, -8, -0.5, -1.5, -2.5, -3.5]),
    ],
)
def test_slopes(num_heads: int, exponents: list[float]) -> None:
    slopes_N = alibi_slopes(num_heads)
    assert slopes_N.dtype == torch.float32
    torch.testing.assert_close(slopes_N, torch.tensor([2.0**e for e in exponents]))


def test_blooms_heads_have_as_many_slopes_all_different() -> None:
    slopes_N = alibi_slopes(112)
    assert len(slopes_N) == len(slopes_N.unique()) == 112


def test_bias_is_by_position_and_hides_the_future_by_order() -> None:
    hidden = float("-inf")
    bias_NST = alibi_bias(torch.tensor([0.5, 2.0]), torch.tensor([1, 1]), torch.tensor([0, 3, 1, 1]), causal=True)
    assert bias_NST.tolist() == [
        [[-0.5, -1.0, 0.0, hidden], [-0.5, -1.0, 0.0, 0.0]],
        [[-2.0, -4.0, 0.0, hidden], [-2.0, -4.0, 0.0, 0.0]],
    ]
    assert alibi_bias(torch.tensor([1.0]), torch.arange(2), torch.arange(2), causal=False).tolist() == [
        [[0.0, -1.0], [-1.0, 0.0]]
    ]
