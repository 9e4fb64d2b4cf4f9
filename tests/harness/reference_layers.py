"""The layers of the oracle, each switch of ``ModelConfig`` written from its paper: norms, positions, attention, FFN.

Plain PyTorch for fp32 and fp64, nothing from the library's model. Shapes: B rows, S sequence, H hidden, N query heads,
G key/value heads, D head dim, F ffn. ``positions_B2S`` holds a position and a block position for every token.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from glm130b.config.model import ModelConfig


class Norm(nn.Module):
    """LayerNorm (Ba et al. 2016), or RMSNorm (Zhang & Sennrich 2019), which neither centres nor has a bias."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.centred = model.normalization == "layernorm"
        self.epsilon = model.layernorm_epsilon
        self.weight = nn.Parameter(torch.ones(model.hidden_size))
        has_bias = self.centred and model.biases
        self.bias = nn.Parameter(torch.zeros(model.hidden_size)) if has_bias else None

    def forward(self, x_BSH: Tensor) -> Tensor:
        if self.centred:
            x_BSH = x_BSH - x_BSH.mean(dim=-1, keepdim=True)
        scaled_BSH = self.weight * x_BSH / (x_BSH.square().mean(dim=-1, keepdim=True) + self.epsilon).sqrt()
        return scaled_BSH if self.bias is None else scaled_BSH + self.bias


def rotate(x_BSND: Tensor, positions_BS: Tensor, base: float, table: Literal["fp32", "fp16"] = "fp32") -> Tensor:
    """Turn dimensions (i, i + D/2) of every head by ``position * base ** (-2 i / D)`` (RoFormer, Su et al. 2021).

    In the ``fp16`` table frequencies, positions, angles and their cosines and sines are each rounded to fp16, as the
    public model has it. Neither table depends on the dtype of ``x``.
    """
    head_dim, dtype = x_BSND.shape[-1], torch.float16 if table == "fp16" else torch.float32
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=x_BSND.device) / head_dim
    angles = positions_BS[:, :, None, None].to(dtype) * (base**-exponents).to(dtype)  # [B, S, 1, D/2]
    cos, sin = angles.cos().to(x_BSND.dtype), angles.sin().to(x_BSND.dtype)
    first, second = x_BSND.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def alibi_slopes(num_heads: int) -> list[float]:
    """The geometric sequence from ``2 ** (-8 / n)`` for n a power of two; for other n that of the next lower power,
    then every second slope of the next higher one (ALiBi, Press et al. 2022, section 3 and appendix)."""
    power = 2 ** math.floor(math.log2(num_heads))
    between = range(1, 2 * (num_heads - power), 2)
    return [2.0 ** (-8 * i / power) for i in range(1, power + 1)] + [2.0 ** (-4 * i / power) for i in between]


class Attention(nn.Module):
    """Self-attention; the fused matrix holds, one key/value head after another, the rows of its query heads, k and v.

    Every key/value head serves N / G query heads (Shazeer 2019; Ainslie et al. 2023).
    """

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.model = model
        self.num_heads = model.num_attention_heads
        self.num_groups = model.num_key_value_heads or self.num_heads
        self.head_dim = model.head_dim or model.hidden_size // self.num_heads
        fused_rows = (self.num_heads + 2 * self.num_groups) * self.head_dim
        self.linear_qkv = nn.Linear(model.hidden_size, fused_rows, bias=model.biases)
        self.linear_proj = nn.Linear(self.num_heads * self.head_dim, model.hidden_size, bias=model.biases)

    def forward(self, hidden_BSH: Tensor, positions_B2S: Tensor, visible_BSS: Tensor) -> Tensor:
        query, key, value = self.query_key_value(self.linear_qkv(hidden_BSH), positions_B2S)
        key, value = (x.repeat_interleave(self.num_heads // self.num_groups, dim=2) for x in (key, value))
        scores_BNSS = torch.einsum("bqnd,bknd->bnqk", query, key) / self.head_dim**0.5
        if self.model.positions == "alibi":
            distance_BSS = (positions_B2S[:, 0, :, None] - positions_B2S[:, 0, None, :]).abs()
            slopes_N = torch.tensor(alibi_slopes(self.num_heads), dtype=query.dtype, device=query.device)
            scores_BNSS = scores_BNSS - slopes_N[:, None, None] * distance_BSS[:, None]
        scores_BNSS = scores_BNSS.masked_fill(~visible_BSS[:, None], float("-inf"))
        mixed_BSND = torch.einsum("bnqk,bknd->bqnd", scores_BNSS.softmax(dim=-1), value)
        return self.linear_proj(mixed_BSND.flatten(2))

    def query_key_value(self, qkv_BSX: Tensor, positions_B2S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query [B, S, N, D], key and value [B, S, G, D] from the output of ``linear_qkv``; the first two rotated."""
        groups = qkv_BSX.unflatten(-1, (self.num_groups, -1, self.head_dim))  # [B, S, G, N/G + 2, D]
        query, key, value = groups[:, :, :, :-2].flatten(2, 3), groups[:, :, :, -2], groups[:, :, :, -1]
        return self.rotated(query, positions_B2S), self.rotated(key, positions_B2S), value

    def rotated(self, x_BSND: Tensor, positions_B2S: Tensor) -> Tensor:
        base, table = self.model.rotary_base, self.model.rotary_table
        if self.model.positions == "rope":
            return rotate(x_BSND, positions_B2S[:, 0], base, table)
        if self.model.positions == "rope_2d":  # ChatGLM-6B: half a head by the position, half by the block position
            halves = zip(x_BSND.chunk(2, dim=-1), positions_B2S.unbind(dim=1), strict=True)
            return torch.cat([rotate(half, positions_BS, base, table) for half, positions_BS in halves], dim=-1)
        return x_BSND


class FFN(nn.Module):
    """``W2 gelu(W1 x)``; gated, the first F rows of ``linear_fc1`` go through the activation and gate the last F
    (GeGLU and SwiGLU, Shazeer 2020). The GELU is the exact one (erf)."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.gated = model.ffn != "gelu"
        self.activation = functional.silu if model.ffn == "swiglu" else functional.gelu
        rows = (2 if self.gated else 1) * model.ffn_hidden_size
        self.linear_fc1 = nn.Linear(model.hidden_size, rows, bias=model.biases)
        self.linear_fc2 = nn.Linear(model.ffn_hidden_size, model.hidden_size, bias=model.biases)

    def forward(self, hidden_BSH: Tensor) -> Tensor:
        inner_BSF = self.linear_fc1(hidden_BSH)
        if not self.gated:
            return self.linear_fc2(self.activation(inner_BSF))
        gate_BSF, linear_BSF = inner_BSF.chunk(2, dim=-1)
        return self.linear_fc2(self.activation(gate_BSF) * linear_BSF)


class Layer(nn.Module):
    """Attention and FFN; how the norms and the residual sums stand around them is what the subclasses are."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.self_attention = Attention(model)
        self.mlp = FFN(model)


class PreNormLayer(Layer):
    """A norm before each sublayer (GPT-2)."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__(model)
        self.input_layernorm = Norm(model)
        self.pre_mlp_layernorm = Norm(model)

    def forward(self, x_BSH: Tensor, positions_B2S: Tensor, visible_BSS: Tensor) -> Tensor:
        y_BSH = x_BSH + self.self_attention(self.input_layernorm(x_BSH), positions_B2S, visible_BSS)
        return y_BSH + self.mlp(self.pre_mlp_layernorm(y_BSH))


class DeepNormLayer(PreNormLayer):
    """DeepNorm as GLM-130B had it (paper, section 2.1): a residual is the LayerNorm's own output, times sqrt(2 N)."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__(model)
        self.residual_scale = (2 * model.num_layers) ** 0.5

    def forward(self, x_BSH: Tensor, positions_B2S: Tensor, visible_BSS: Tensor) -> Tensor:
        h_BSH = self.input_layernorm(x_BSH)
        y_BSH = self.residual_scale * h_BSH + self.self_attention(h_BSH, positions_B2S, visible_BSS)
        g_BSH = self.pre_mlp_layernorm(y_BSH)
        return self.residual_scale * g_BSH + self.mlp(g_BSH)


class PostNormLayer(Layer):
    """A norm after each residual sum (Vaswani et al. 2017)."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__(model)
        self.post_attention_layernorm = Norm(model)
        self.post_mlp_layernorm = Norm(model)

    def forward(self, x_BSH: Tensor, positions_B2S: Tensor, visible_BSS: Tensor) -> Tensor:
        y_BSH = self.post_attention_layernorm(x_BSH + self.self_attention(x_BSH, positions_B2S, visible_BSS))
        return self.post_mlp_layernorm(y_BSH + self.mlp(y_BSH))


class SandwichLayer(PreNormLayer):
    """A norm before and after each sublayer, the residual untouched (CogView, Ding et al. 2021)."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__(model)
        self.post_attention_layernorm = Norm(model)
        self.post_mlp_layernorm = Norm(model)

    def forward(self, x_BSH: Tensor, positions_B2S: Tensor, visible_BSS: Tensor) -> Tensor:
        attended_BSH = self.self_attention(self.input_layernorm(x_BSH), positions_B2S, visible_BSS)
        y_BSH = x_BSH + self.post_attention_layernorm(attended_BSH)
        return y_BSH + self.post_mlp_layernorm(self.mlp(self.pre_mlp_layernorm(y_BSH)))


class ParallelLayer(Layer):
    """Attention and FFN side by side on one norm's output (PaLM, Chowdhery et al. 2022, section 2)."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__(model)
        self.input_layernorm = Norm(model)

    def forward(self, x_BSH: Tensor, positions_B2S: Tensor, visible_BSS: Tensor) -> Tensor:
        n_BSH = self.input_layernorm(x_BSH)
        return x_BSH + self.self_attention(n_BSH, positions_B2S, visible_BSS) + self.mlp(n_BSH)


def build_layer(model: ModelConfig) -> Layer:
    """One layer in the model's arrangement."""
    placements = {"deepnorm": DeepNormLayer, "pre": PreNormLayer, "post": PostNormLayer, "sandwich": SandwichLayer}
    return ParallelLayer(model) if model.parallel_block else placements[model.norm_placement](model)
