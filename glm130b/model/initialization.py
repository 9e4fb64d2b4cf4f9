"""Initial weights: a pure function of (config, seed, parameter name), the same in every layout.

Xavier normal with the fans of the whole matrix. With DeepNorm the gain is 1 for the embedding, query and key, and b =
(2 N) ** -0.5 for value, attention output and both FFN matrices (GLM-130B paper, section 2.1; DeepNorm, Wang et al.
2022, table 2). In the other placements only the matrices that write to the residual, attention output and second FFN
matrix, have gain b (GPT-2), around Xavier's deviation or a chosen one. Query, key and value are matrices of their own,
and so are the two halves of a gated FFN. Biases are 0, norms 1.
"""

import hashlib
import math

import torch
from torch import Tensor

from glm130b.config.model import ModelConfig
from glm130b.model.sharding import ParameterShard, parameter_shards
from glm130b.model.stage import Stage

_BLOCK = 64
"""Slices of the cut dimension that share a random generator: a rank draws what it holds, not the whole matrix."""


@torch.no_grad()
def initialize_(stage: Stage, seed: int) -> None:
    """Fill every parameter of the stage in place."""
    for shard in parameter_shards(stage):
        if shard.name.endswith(".bias"):
            shard.parameter.zero_()
        elif len(shard.whole_shape) == 1:
            shard.parameter.fill_(1.0)
        else:
            _fill_matrix(shard, _standard_deviations(shard.name, shard.whole_shape, stage.model), seed)


def residual_gain(num_layers: int) -> float:
    """Initial gain of the matrices that write to the residual, (2 N) ** -0.5; DeepNorm's beta."""
    return (2 * num_layers) ** -0.5


def _standard_deviations(name: str, whole_shape: tuple[int, ...], model: ModelConfig) -> Tensor:
    """Standard deviation of every row [whole rows, 1] of a matrix, or of all rows [1, 1]."""
    b = residual_gain(model.num_layers)
    deepnorm_gain = b if model.norm_placement == "deepnorm" else 1.0
    hidden, heads, groups, width = model.hidden_size, model.num_attention_heads, model.key_value_heads, model.head_size
    if name.endswith("linear_qkv.weight"):
        query = _deviation(1.0, hidden + heads * width, model)
        key, value = (_deviation(gain, hidden + groups * width, model) for gain in (1.0, deepnorm_gain))
        # Rows are ordered [group][its queries, its key, its value][head dim].
        per_group = torch.tensor([query] * (heads // groups) + [key, value]).repeat_interleave(width)
        return per_group.repeat(groups)[:, None]
    if name.endswith("linear_fc1.weight"):
        # A gated one is two matrices on top of each other.
        return torch.full((1, 1), _deviation(deepnorm_gain, hidden + model.ffn_hidden_size, model))
    is_residual = name.endswith(("linear_proj.weight", "linear_fc2.weight"))
    return torch.full((1, 1), _deviation(b if is_residual else 1.0, sum(whole_shape), model))


def _deviation(gain: float, fans: int, model: ModelConfig) -> float:
    """``fans`` is fan-in plus fan-out."""
    return gain * (model.initial_std or math.sqrt(2.0 / fans))


def _fill_matrix(shard: ParameterShard, deviations: Tensor, seed: int) -> None:
    for piece in shard.pieces:
        end = piece.whole_start + piece.length
        for block in range(piece.whole_start // _BLOCK, math.ceil(end / _BLOCK)):
            block_start = block * _BLOCK
            low, high = max(block_start, piece.whole_start), min(block_start + _BLOCK, end)
            values = _draw_block(shard, block_start, seed).narrow(shard.dim, low - block_start, high - low)
            scale = deviations[low:high] if len(deviations) > 1 else deviations
            local_start = piece.local_start + low - piece.whole_start
            shard.parameter.narrow(shard.dim, local_start, high - low).copy_(values * scale)


def _draw_block(shard: ParameterShard, block_start: int, seed: int) -> Tensor:
    """Standard normal fp32 values of one block of slices of the whole matrix, drawn on the CPU: the same on every
    machine."""
    shape = list(shard.whole_shape)
    shape[shard.dim] = min(_BLOCK, shape[shard.dim] - block_start)
    digest = hashlib.blake2b(f"{seed}/{shard.name}/{block_start}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randn(shape, generator=generator)
