"""What is trained: the GLM of the GLM-130B paper, and by its switches the family around it.

Every default is GLM-130B's choice. ``configs/families`` has the other members as presets.
"""

from typing import Literal

from pydantic import Field

from glm130b.config.ramp import Ramp
from glm130b.config.section import Section


class GradientShrink(Section):
    """Embedding gradient shrink (GLM-130B paper, section 3.2): the forward pass is untouched, the gradient is
    multiplied."""

    alpha: Ramp
    """Factor on the embedding gradient; 1.0 turns the shrink off. The original ended at 0.1."""
    input_side: bool = True
    """Shrink the gradient that arrives through the token look-up."""
    logit_side: bool = True
    """Shrink the gradient that arrives through the tied output projection; an untied one is never shrunk."""


class ModelConfig(Section):
    """A GLM with DeepNorm, rotary positions and a GeLU-gated FFN (GLM-130B paper, section 2.1), or a relative of it."""

    num_layers: int = Field(ge=1)
    """Transformer layers."""
    hidden_size: int = Field(ge=1)
    """Width of the residual stream."""
    num_attention_heads: int = Field(ge=1)
    """Heads of the query; a multiple of ``parallel.tensor``."""
    num_key_value_heads: int | None = Field(default=None, ge=1)
    """Heads of key and value, each shared by equally many query heads: null is one for each query head, 1 is
    multi-query attention (Shazeer 2019), between them grouped-query attention (Ainslie et al. 2023)."""
    head_dim: int | None = Field(default=None, ge=1)
    """Width of a head; null is ``hidden_size / num_attention_heads``."""
    ffn_hidden_size: int = Field(ge=1)
    """Width of the FFN, of each of the two halves of a gated one; GLM-130B uses 8/3 of the hidden size."""
    vocab_size: int = Field(ge=1)
    """Rows of the embedding: tokenizer pieces, special tokens and padding. Does not depend on the layout."""

    attention: Literal["prefix", "causal"] = "prefix"
    """Whether a context sees all of itself (GLM) or only what came before (GPT)."""
    positions: Literal["rope", "rope_2d", "learned", "learned_2d", "alibi"] = "rope"
    """Rotary (GLM-130B), rotary by position and block position, half a head each (ChatGLM-6B), a learned vector for
    each position (GPT-2) and block position (GLM), or a bias by distance (ALiBi, Press et al. 2022)."""
    rotary_base: float = Field(default=10000.0, gt=0)
    """Base of the rotary wavelengths (Su et al. 2021)."""
    rotary_table: Literal["fp32", "fp16"] = "fp32"
    """Number format in which rotary angles are computed; ``fp16`` for weights released by the original, which did."""
    max_positions: int | None = Field(default=None, ge=1)
    """Rows of each table of learned positions; needed for those only."""
    ffn: Literal["geglu", "swiglu", "gelu"] = "geglu"
    """GELU-gated, SiLU-gated (Shazeer 2020) or plain GELU; the GELU is the exact one."""
    norm_placement: Literal["deepnorm", "pre", "post", "sandwich"] = "deepnorm"
    """DeepNorm as GLM-130B had it, before each sublayer, after each residual sum, or before and after each sublayer
    (Ding et al. 2021)."""
    normalization: Literal["layernorm", "rmsnorm"] = "layernorm"
    """LayerNorm, or RMSNorm, which has no mean and no bias (Zhang and Sennrich 2019)."""
    layernorm_epsilon: float = Field(default=1e-5, gt=0)
    """Added to the variance in every norm."""
    parallel_block: bool = False
    """Attention and FFN side by side on one norm's output (PaLM), with ``norm_placement: pre``."""
    embedding_norm: bool = False
    """A norm on the embedding's output (BLOOM)."""
    biases: bool = True
    """In the linear layers and the LayerNorms."""
    tie_embedding: bool = True
    """Project onto the vocabulary with the embedding itself; false gives the projection weights of its own."""
    initial_std: float | None = Field(default=None, gt=0)
    """Standard deviation of the initial matrices, on residual outputs times (2 N) ** -0.5 (GPT-2); null is Xavier
    normal, with DeepNorm's gains where ``norm_placement`` is ``deepnorm``."""

    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of attention weights dropped in training; PyTorch's ``varlen`` kernel has no dropout."""
    hidden_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share dropped of each sublayer's output in training."""
    embedding_gradient_shrink: GradientShrink

    @property
    def head_size(self) -> int:
        """Width of a head, chosen or derived."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def key_value_heads(self) -> int:
        """Heads of key and value, chosen or derived."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def num_norms(self) -> int:
        """Norms of one layer."""
        return 1 if self.parallel_block else 4 if self.norm_placement == "sandwich" else 2

    @property
    def ffn_halves(self) -> int:
        """Matrices that the FFN's input goes through: with a gate two."""
        return 1 if self.ffn == "gelu" else 2

    @property
    def has_rotary_positions(self) -> bool:
        return self.positions in ("rope", "rope_2d")

    @property
    def has_learned_positions(self) -> bool:
        return self.num_position_tables > 0

    @property
    def num_position_tables(self) -> int:
        """Tables of learned vectors: for the position, then for the block position."""
        return {"learned": 1, "learned_2d": 2}.get(self.positions, 0)

    @property
    def has_block_positions(self) -> bool:
        """Positions are pairs (GLM paper, section 2.2.1): where a token or its blank stands in the context, and how far
        inside its blank it is."""
        return self.positions in ("rope_2d", "learned_2d")
