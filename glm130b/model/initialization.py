"""Initial weights: a pure function of (config, seed, parameter name), the same in every layout.

Xavier normal with the fans of the whole matrix; gain 1 for the embedding, query and key, gain (2 N) ** -0.5 for value,
attention output and both FFN matrices; biases 0, LayerNorm weights 1 (GLM-130B paper, section 2.1; DeepNorm, Wang et
al. 2022, table 2). Query, key and value are three matrices, and so are the two halves of the gated FFN.
"""

import hashlib
import math

import torch
from torch import Tensor

from glm130b.config.sections import ModelConfig
from glm130b.model.deepnorm import deepnorm_beta
from glm130b.model.glm import GLM
from glm130b.model.sharding import EMBEDDING, ParameterShard, parameter_shards

_BLOCK = 64
"""Slices of the cut dimension that share a random generator: a rank draws what it holds, not the whole matrix."""


@torch.no_grad()
def initialize_(model: GLM, seed: int) -> None:
    """Fill every parameter of the stage in place."""
    for shard in parameter_shards(model):
        if shard.name.endswith(".bias"):
            shard.parameter.zero_()
        elif shard.name.endswith("layernorm.weight"):
            shard.parameter.fill_(1.0)
        else:
            _fill_matrix(shard, _standard_deviations(shard.name, model.model), seed)


def _standard_deviations(name: str, model: ModelConfig) -> Tensor:
    """Xavier standard deviation of every row [whole rows, 1] of a matrix, or of all rows [1, 1]."""
    hidden, ffn, beta = model.hidden_size, model.ffn_hidden_size, deepnorm_beta(model.num_layers)
    if name == EMBEDDING:
        return _xavier(1.0, model.vocab_size, hidden)
    if name.endswith("linear_qkv.weight"):
        # Rows are ordered [head][q, k, v][head dim], so the gains change inside every head.
        per_head = torch.tensor([1.0, 1.0, beta]).repeat_interleave(hidden // model.num_attention_heads)
        return _xavier(1.0, hidden, hidden) * per_head.repeat(model.num_attention_heads)[:, None]
    if name.endswith("linear_proj.weight"):
        return _xavier(beta, hidden, hidden)
    return _xavier(beta, hidden, ffn)


def _xavier(gain: float, fan_in: int, fan_out: int) -> Tensor:
    return torch.full((1, 1), gain * math.sqrt(2.0 / (fan_in + fan_out)))


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
