"""How each parameter of a stage lies inside the whole model: its name, the whole shape, and where its pieces sit.

Initialisation, checkpoints and conversion all work on whole tensors by name and read the cutting here, nowhere else.
Whole names are Megatron-core's own with the layer's index counted over all stages, for example
``decoder.layers.37.self_attention.linear_qkv.weight``; a tied projection's copy goes by the embedding's name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from glm130b.model.glm import GLM
from glm130b.model.stage import Stage

EMBEDDING = "embedding.word.weight"


class Piece(NamedTuple):
    """``length`` consecutive slices along the cut dimension: where they start on this rank and in the whole tensor."""

    local_start: int
    whole_start: int
    length: int


@dataclass(frozen=True)
class ParameterShard:
    """A parameter of this rank and its place in the whole model."""

    name: str
    parameter: nn.Parameter
    whole_shape: tuple[int, ...]
    dim: int
    """The dimension along which tensor parallelism cuts; 0 for a parameter that is not cut."""
    pieces: tuple[Piece, ...]
    """One piece, or for the gated FFN's first matrix two: this rank's gated rows, then its linear rows."""
    is_replicated: bool
    """Every tensor-parallel rank holds all of it."""
    is_tied_copy: bool
    """The last stage's copy of the embedding, which the first stage owns."""


def parameter_shards(stage: Stage) -> Iterator[ParameterShard]:
    """The shards of one stage, in the order of ``stage.parameters()``."""
    for chunk in stage:
        for local_name, parameter in chunk.named_parameters():
            yield _shard(chunk, local_name, parameter)


def _shard(chunk: GLM, local_name: str, parameter: Any) -> ParameterShard:
    is_cut = bool(getattr(parameter, "tensor_model_parallel", False))
    dim = parameter.partition_dim if is_cut else 0
    group = chunk.decoder.tp_group
    tensor_size, tensor_rank = (group.size(), group.rank()) if is_cut else (1, 0)
    whole_shape = list(parameter.shape)
    whole_shape[dim] *= tensor_size
    return ParameterShard(
        name=whole_name(chunk, local_name),
        parameter=parameter,
        whole_shape=tuple(whole_shape),
        dim=dim,
        pieces=cut(whole_shape[dim], tensor_size, tensor_rank, parameter.partition_stride if is_cut else 1),
        is_replicated=not is_cut,
        is_tied_copy=parameter is chunk.tied_weight and not chunk.first_stage,
    )


def whole_name(chunk: GLM, local_name: str) -> str:
    """The name in the whole model of a chunk's parameter.

    >>> whole_name(of_second_stage, "decoder.layers.0.mlp.linear_fc2.bias")      # doctest: +SKIP
    'decoder.layers.35.mlp.linear_fc2.bias'
    """
    if local_name == "output_layer.weight" and chunk.model.tie_embedding:
        return EMBEDDING
    parts = local_name.split(".")
    if parts[:2] == ["decoder", "layers"]:
        parts[2] = str(chunk.decoder.layers[int(parts[2])].layer_number - 1)
    return ".".join(parts)


def cut(whole: int, tensor_size: int, tensor_rank: int, stride: int) -> tuple[Piece, ...]:
    """The pieces of one rank: the whole is ``stride`` stacked matrices, each cut evenly over the ranks.

    >>> cut(whole=16, tensor_size=2, tensor_rank=1, stride=2)
    (Piece(local_start=0, whole_start=4, length=4), Piece(local_start=4, whole_start=12, length=4))
    """
    length = whole // (tensor_size * stride)
    return tuple(Piece(i * length, (i * tensor_size + tensor_rank) * length, length) for i in range(stride))
