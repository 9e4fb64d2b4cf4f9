"""How far half precision may move a small run's numbers: derived from its roundings, not from what was seen."""

import math

from tests.harness.synthetic import SyntheticRows

ROUNDINGS_PER_LAYER = 10
"""Times that a layer rounds what it computes to the run's format: two norms, the outputs and the biases of four
products, queries and keys turned, the mixed values, the activation, two residual sums; some of these inside another."""

UNIT_ROUNDOFF = {"fp16": 2.0**-11, "bf16": 2.0**-8}


def value_error(dtype: str, layers: int) -> float:
    """Standard deviation of the relative error of what so many layers compute.

    One rounding moves a value by u / sqrt(3) in the mean, with u the unit roundoff; K independent ones in a row by
    sqrt(K) times that.
    """
    return math.sqrt(ROUNDINGS_PER_LAYER * layers / 3) * UNIT_ROUNDOFF[dtype]


def loss_bound(dtype: str, layers: int) -> float:
    """How far apart rounding keeps the losses of two runs, in nats, three standard deviations.

    The residual stream is normalised to variance 1 and the logits of these models have a standard deviation near 1, so
    a token's loss moves by about a value's error. Two passes take part: the forward pass, and the backward passes
    before it, which made the weights. A run against an exact one has half this variance.
    """
    return _bound(dtype, layers, passes=2)


def norm_bound(dtype: str, layers: int) -> float:
    """The same for gradient norms, in units of the norm of the whole gradient.

    A gradient is a mean over tokens, and each token's part has the relative error of what it was computed from. Where
    the parts of T tokens point the same way, their errors average out in the sum; where they are orthogonal, so do
    those of their squares; the norm's relative error is sqrt(T) less than a token's either way. Errors of single
    elements weigh nothing in it, there are thousands. Three passes take part: those of the loss, and its own backward.

    A layer's norm is held in the same unit, not in its own: Adam's updates do not shrink with a layer's gradient, so
    neither does what the rounding of earlier updates does to it. (Relative to itself, a fourth of the whole, a layer's
    norm was seen to move by 1.2e-3 in fp16, beyond this bound's 1.1e-3.)
    """
    return _bound(dtype, layers, passes=3)


def _bound(dtype: str, layers: int, *, passes: int) -> float:
    """Three standard deviations of the difference of two runs' means over a batch's loss tokens."""
    rows = SyntheticRows()
    tokens = sum(int(rows[sample].loss_mask.sum()) for sample in range(8))
    return 3 * math.sqrt(2) * math.sqrt(passes / tokens) * value_error(dtype, layers)
