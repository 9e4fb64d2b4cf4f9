"""The parts of a model whose norms are told: kinds of parameters, layers, the word embedding. A part's norm is the root
of a sum of squares, to which every rank adds what it owns."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from glm130b.config.model import ModelConfig
from glm130b.model.sharding import EMBEDDING
from glm130b.parallel.ownership import Owned

WORD_EMBEDDING, WHOLE, HELD = "embedding", "whole", "held"
"""Parts besides the kinds and the layers: ``held`` is all that any rank owns, with the copies that do not count, so
that nothing in them goes unseen."""


def kinds(model: ModelConfig) -> list[str]:
    """The kinds of parameters that a model has, the word embedding aside."""
    tables = ["positions"] if model.num_position_tables else []
    return ["attention", "ffn", "norms", *tables, *([] if model.tie_embedding else ["projection"])]


def kind(name: str) -> str:
    """Of a parameter, by its whole name.

    >>> [kind(f"decoder.layers.7.{name}") for name in ("mlp.linear_fc1.bias", "input_layernorm.weight")]
    ['ffn', 'norms']
    """
    if name == EMBEDDING:
        return WORD_EMBEDDING
    if "norm." in name:
        return "norms"
    for mark, found in ((".self_attention.", "attention"), (".mlp.", "ffn"), ("output_layer.", "projection")):
        if mark in f".{name}":
            return found
    return "positions"


def layer(name: str) -> str | None:
    """``layer.7`` for a parameter of layer 7, by its whole name; None outside the layers."""
    words = name.split(".")
    return f"layer.{words[2]}" if words[:2] == ["decoder", "layers"] else None


class ParameterParts:
    """Adds up squares by part. ``names`` is the same on every rank, so that sums can be added over the ranks."""

    def __init__(self, model: ModelConfig, owned: Sequence[Owned]) -> None:
        self.layers = tuple(f"layer.{index}" for index in range(model.num_layers))
        self.kinds = tuple(kinds(model))
        self.names = (*self.kinds, *self.layers, WORD_EMBEDDING, WHOLE, HELD)
        rows = {name: row for row, name in enumerate(self.names)}
        self._belongs_PF = torch.zeros(len(self.names), len(owned), dtype=torch.float64)
        for column, part in enumerate(owned):
            name = part.shard.name
            counted = (kind(name), layer(name), WHOLE) if part.is_counted else ()
            for each in (*counted, HELD):
                if each is not None:
                    self._belongs_PF[rows[each], column] = 1.0

    def sums(self, squares_F: Tensor) -> Tensor:
        """This rank's part of every part's sum of squares, fp64, from that of everything it owns (see ``squares``)."""
        self._belongs_PF = self._belongs_PF.to(squares_F.device)
        return self._belongs_PF @ squares_F


PIECE_ELEMENTS = 2**16
"""What is summed in fp32: over more, PyTorch loses digits on a CPU, and fp64 throughout takes twenty times as long."""


def squares(tensors: Sequence[Tensor]) -> Tensor:
    """Sum of squares of each flat tensor, fp64 [F], in few kernels; nobody waits for the device."""
    if not tensors:
        return torch.zeros(0, dtype=torch.float64)
    pieces = [tensor.split(PIECE_ELEMENTS) for tensor in tensors]
    norms = torch.stack(torch._foreach_norm(list(itertools.chain(*pieces)), 2, dtype=torch.float32))
    squares_by_tensor = norms.double().square().split([len(of_one) for of_one in pieces])
    return torch.stack([of_one.sum() for of_one in squares_by_tensor])


def sum_of_squares(values: Tensor) -> Tensor:
    """Of one flat tensor, fp64, a scalar on its device."""
    return squares([values])[0]
