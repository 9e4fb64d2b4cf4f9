"""A model and rows small enough to check by hand."""

from typing import Any

import numpy as np
import torch

from glm130b.config.model import ModelConfig
from glm130b.data.objectives.row import Row, Segment
from tests.harness.reference_glm import ReferenceGLM

VOCABULARY, LENGTH = 29, 12
SEGMENTS = (Segment(0, 3, 2), Segment(5, 2, 4))
"""Token 11 is padding."""


def tiny_config(**switches: Any) -> ModelConfig:
    """Two layers of hidden size 12 and three heads; keyword arguments set single switches."""
    raw: dict[str, Any] = {
        "num_layers": 2,
        "hidden_size": 12,
        "num_attention_heads": 3,
        "ffn_hidden_size": 20,
        "vocab_size": VOCABULARY,
        "max_positions": LENGTH if str(switches.get("positions")).startswith("learned") else None,
        "embedding_gradient_shrink": {"alpha": {"start": 1.0, "end": 1.0}},
    }
    return ModelConfig.model_validate(raw | switches)


def tiny_model(dtype: torch.dtype = torch.float64, **switches: Any) -> ReferenceGLM:
    """Every weight random, of norms and biases too, so that no term of a gradient is zero."""
    model = ReferenceGLM(tiny_config(**switches)).to(dtype)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.copy_(mean + 0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def random_row(seed: int) -> Row:
    generator = np.random.default_rng(seed)
    loss_mask = np.zeros(LENGTH, dtype=bool)
    for segment in SEGMENTS:
        loss_mask[segment.start + segment.context_length : segment.end] = True
    return Row(
        tokens=generator.integers(VOCABULARY, size=LENGTH),
        targets=generator.integers(VOCABULARY, size=LENGTH),
        loss_mask=loss_mask,
        positions=np.array([0, 1, 2, 1, 1, 0, 1, 2, 3, 4, 5, 0]),
        block_positions=np.array([0, 0, 0, 1, 2, 0, 0, 1, 2, 3, 4, 0]),
        segments=SEGMENTS,
        objective="mask",
        source="test",
    )


def tokens_and_positions(row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [1, S] and positions [1, 2, S] of one row."""
    return torch.from_numpy(row.tokens)[None], torch.from_numpy(np.stack((row.positions, row.block_positions)))[None]


def logits_of(model: ReferenceGLM, row: Row) -> torch.Tensor:
    """Logits [S, V] of one row."""
    return model(*tokens_and_positions(row), [row.segments])[0]
