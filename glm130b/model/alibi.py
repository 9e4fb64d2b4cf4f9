"""ALiBi: a penalty on distance instead of positions in the embedding (Press et al. 2022, section 3)."""

import math

import torch
from torch import Tensor


def alibi_slopes(num_heads: int) -> Tensor:
    """Slope of every head [N] in fp32: for a power of two, a geometric sequence that ends at 2 ** -8.

    For any other number the slopes of the next lower power, then every second one of the next higher (the authors'
    code).

    >>> alibi_slopes(6).log2().tolist()
    [-2.0, -4.0, -6.0, -8.0, -1.0, -3.0]
    """
    power = 2 ** math.floor(math.log2(num_heads))
    exponents = [-8 * i / power for i in range(1, power + 1)]
    exponents += [-4 * i / power for i in range(1, 2 * (num_heads - power), 2)]
    return 2.0 ** torch.tensor(exponents, dtype=torch.float32)


def alibi_bias(slopes_N: Tensor, query_positions_S: Tensor, key_positions_T: Tensor, *, causal: bool) -> Tensor:
    """What is added to scaled scores: ``-slope * |query position - key position|``, [N, S, T] in fp32.

    Distance is absolute because the queries of a context also see what comes after them. ``causal`` aligns queries and
    keys at their ends and hides later keys by minus infinity, whatever their positions.
    """
    distance_ST = (query_positions_S[:, None] - key_positions_T[None, :]).abs()
    bias_NST = -slopes_N[:, None, None] * distance_ST
    if causal:
        num_queries, num_keys = distance_ST.shape
        future_ST = torch.ones_like(distance_ST, dtype=torch.bool).triu(num_keys - num_queries + 1)
        bias_NST.masked_fill_(future_ST, float("-inf"))
    return bias_NST
