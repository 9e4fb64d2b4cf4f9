"""LayerNorm and RMSNorm: PyTorch's own, or a fused one where apex or Transformer Engine is installed."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import nn

from glm130b.config.model import ModelConfig

Implementation = Literal["torch", "apex", "transformer_engine"]


def build_norm(model: ModelConfig, implementation: Implementation, *, sequence_parallel: bool) -> nn.Module:
    """The model's norm, [.., H] -> [.., H].

    Under sequence parallelism a rank normalises its own part of the sequence, so the gradients of the weights are
    parts of a sum; ``sequence_parallel`` on a parameter says so, and ``parallel/shared_gradients.py`` adds them up.
    """
    norm = _constructor(model, implementation)(model.hidden_size, eps=model.layernorm_epsilon)
    for parameter in norm.parameters():
        parameter.sequence_parallel = sequence_parallel  # type: ignore[attr-defined]
    return norm


def _constructor(model: ModelConfig, implementation: Implementation) -> Callable[..., nn.Module]:
    """What makes a norm of a hidden size and an epsilon. The fused ones are not chosen for a LayerNorm without bias."""
    is_layernorm = model.normalization == "layernorm"
    if implementation == "torch":
        return partial(nn.LayerNorm, bias=model.biases) if is_layernorm else nn.RMSNorm
    if implementation == "apex":
        from apex.normalization import FusedLayerNorm, FusedRMSNorm
    else:
        from transformer_engine.pytorch import LayerNorm as FusedLayerNorm
        from transformer_engine.pytorch import RMSNorm as FusedRMSNorm
    fused: Callable[..., nn.Module] = FusedLayerNorm if is_layernorm else FusedRMSNorm
    return fused
