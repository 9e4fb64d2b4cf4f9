"""The oracle: a GLM on one page of plain PyTorch, one process, a dense attention mask, no dropout.

Written from the papers (GLM-130B, section 2.1; DeepNorm, Wang et al. 2022), not from the library's model; for fp32
and fp64. Shapes: B rows, S sequence, H hidden, V vocabulary, N heads, D head dim, F ffn.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Segments = Sequence[Sequence[tuple[int, int, int]]]
"""Per row, per sample: (start, context length, target length) in tokens."""


def visibility(segments: Segments, sequence_length: int) -> Tensor:
    """Who sees whom: bool [B, S (query), S (key)], True where the query sees the key.

    Within a segment, key k is seen by query q when k lies in the context or k <= q. Padding sees itself only.
    """
    visible_BSS = torch.eye(sequence_length, dtype=torch.bool).repeat(len(segments), 1, 1)
    for row, row_segments in enumerate(segments):
        for start, context_length, target_length in row_segments:
            inside = torch.arange(context_length + target_length)
            query, key = inside[:, None], inside[None, :]
            segment = slice(start, start + len(inside))
            visible_BSS[row, segment, segment] = (key < context_length) | (key <= query)
    return visible_BSS


def rotate(x_BSND: Tensor, positions_BS: Tensor, base: float) -> Tensor:
    """Turn dimensions (i, i + D/2) of every head by ``position * base ** (-2 i / D)``; the table is always fp32."""
    head_dim = x_BSND.shape[-1]
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32, device=x_BSND.device) / head_dim)
    angles = positions_BS[:, :, None, None].float() * frequencies  # [B, S, 1, D/2]
    cos, sin = angles.cos().to(x_BSND.dtype), angles.sin().to(x_BSND.dtype)
    first, second = x_BSND.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def shrink_gradient(weight: Tensor, alpha: float) -> Tensor:
    """``weight`` in the forward pass, to the last bit; its gradient times ``alpha`` in the backward pass."""
    return weight.detach() + alpha * (weight - weight.detach())


def row_losses(logits_BSV: Tensor, targets_BS: Tensor, loss_weights_BS: Tensor) -> Tensor:
    """Loss of every row [B], the weighted sum of its token losses, in fp32 (fp64 for fp64 logits)."""
    dtype = torch.promote_types(logits_BSV.dtype, torch.float32)
    log_probabilities_BSV = logits_BSV.to(dtype).log_softmax(dim=-1)
    token_losses_BS = -log_probabilities_BSV.gather(-1, targets_BS[..., None]).squeeze(-1)
    return (token_losses_BS * loss_weights_BS).sum(dim=1)


class Attention(nn.Module):
    """Self-attention with rotary positions; the fused matrix holds, head by head, the rows of q, k and v."""

    def __init__(self, *, hidden_size: int, num_heads: int, rotary_base: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rotary_base = rotary_base
        self.linear_qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.linear_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_BSH: Tensor, positions_BS: Tensor, visible_BSS: Tensor) -> Tensor:
        query, key, value = self.query_key_value(self.linear_qkv(hidden_BSH), positions_BS)
        scores_BNSS = torch.einsum("bqnd,bknd->bnqk", query, key) / query.shape[-1] ** 0.5
        scores_BNSS = scores_BNSS.masked_fill(~visible_BSS[:, None], float("-inf"))
        mixed_BSND = torch.einsum("bnqk,bknd->bqnd", scores_BNSS.softmax(dim=-1), value)
        return self.linear_proj(mixed_BSND.flatten(2))

    def query_key_value(self, qkv_BSX: Tensor, positions_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query and key, both rotated, and value, each [B, S, N, D], from the output [B, S, 3H] of ``linear_qkv``."""
        query, key, value = qkv_BSX.unflatten(-1, (self.num_heads, 3, -1)).unbind(dim=-2)
        return rotate(query, positions_BS, self.rotary_base), rotate(key, positions_BS, self.rotary_base), value


class GatedMLP(nn.Module):
    """GeGLU: the first F rows of ``linear_fc1`` go through the exact (erf) GELU and gate the last F."""

    def __init__(self, *, hidden_size: int, ffn_hidden_size: int) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(hidden_size, 2 * ffn_hidden_size)
        self.linear_fc2 = nn.Linear(ffn_hidden_size, hidden_size)

    def forward(self, hidden_BSH: Tensor) -> Tensor:
        gate_BSF, linear_BSF = self.linear_fc1(hidden_BSH).chunk(2, dim=-1)
        return self.linear_fc2(functional.gelu(gate_BSF, approximate="none") * linear_BSF)


class DeepNormLayer(nn.Module):
    """``h = LN1(x); g = LN2(a h + Attention(h)); a g + MLP(g)``: a residual is the LayerNorm's output, times ``a``."""

    def __init__(
        self,
        *,
        hidden_size: int,
        num_heads: int,
        ffn_hidden_size: int,
        layernorm_epsilon: float,
        rotary_base: float,
        residual_scale: float,
    ) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.input_layernorm = nn.LayerNorm(hidden_size, eps=layernorm_epsilon)
        self.self_attention = Attention(hidden_size=hidden_size, num_heads=num_heads, rotary_base=rotary_base)
        self.pre_mlp_layernorm = nn.LayerNorm(hidden_size, eps=layernorm_epsilon)
        self.mlp = GatedMLP(hidden_size=hidden_size, ffn_hidden_size=ffn_hidden_size)

    def forward(self, x_BSH: Tensor, positions_BS: Tensor, visible_BSS: Tensor) -> Tensor:
        h_BSH = self.input_layernorm(x_BSH)
        y_BSH = self.residual_scale * h_BSH + self.self_attention(h_BSH, positions_BS, visible_BSS)
        g_BSH = self.pre_mlp_layernorm(y_BSH)
        return self.residual_scale * g_BSH + self.mlp(g_BSH)


class Decoder(nn.Module):
    """The layers and the LayerNorm after the last of them."""

    def __init__(self, layers: Iterable[DeepNormLayer], final_layernorm: nn.LayerNorm) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.final_layernorm = final_layernorm

    def forward(self, x_BSH: Tensor, positions_BS: Tensor, visible_BSS: Tensor) -> Tensor:
        for layer in self.layers:
            x_BSH = layer(x_BSH, positions_BS, visible_BSS)
        return self.final_layernorm(x_BSH)


class ReferenceGLM(nn.Module):
    """The whole model; ``state_dict`` has the names and whole shapes of checkpoints, so whole tensors load directly."""

    def __init__(
        self,
        *,
        num_layers: int,
        hidden_size: int,
        num_attention_heads: int,
        ffn_hidden_size: int,
        vocab_size: int,
        layernorm_epsilon: float = 1e-5,
        rotary_base: float = 10000.0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        layers = (
            DeepNormLayer(
                hidden_size=hidden_size,
                num_heads=num_attention_heads,
                ffn_hidden_size=ffn_hidden_size,
                layernorm_epsilon=layernorm_epsilon,
                rotary_base=rotary_base,
                residual_scale=(2 * num_layers) ** 0.5,
            )
            for _ in range(num_layers)
        )
        self.decoder = Decoder(layers, nn.LayerNorm(hidden_size, eps=layernorm_epsilon))

    def forward(
        self,
        tokens_BS: Tensor,
        positions_BS: Tensor,
        segments: Segments,
        *,
        input_alpha: float = 1.0,
        logit_alpha: float = 1.0,
    ) -> Tensor:
        """Logits [B, S, V]. The alphas shrink the gradient of the tied embedding, on its look-up and its logit side."""
        visible_BSS = visibility(segments, tokens_BS.shape[1]).to(tokens_BS.device)
        x_BSH = functional.embedding(tokens_BS, shrink_gradient(self.embedding.weight, input_alpha))
        hidden_BSH = self.decoder(x_BSH, positions_BS, visible_BSS)
        return hidden_BSH @ shrink_gradient(self.embedding.weight, logit_alpha).T


def from_released_layout(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names and row order for the tensors of an unsplit (TP 1) checkpoint in the released layout.

    The rows of q, k and v are ordered alike; the released FFN has its linear half first, ours the gated half.
    """
    renamed = {
        "transformer.word_embeddings.": "embedding.",
        "transformer.": "decoder.",
        ".attention.query_key_value.": ".self_attention.linear_qkv.",
        ".attention.dense.": ".self_attention.linear_proj.",
        ".post_attention_layernorm.": ".pre_mlp_layernorm.",
        ".dense_h_to_4h.": ".linear_fc1.",
        ".dense_4h_to_h.": ".linear_fc2.",
    }
    whole = {}
    for released_name, tensor in released.items():
        if released_name.endswith("rotary_emb.inv_freq"):
            continue
        name = released_name
        for theirs, ours in renamed.items():
            name = name.replace(theirs, ours)
        if ".linear_fc1." in name:
            linear_half, gated_half = tensor.chunk(2)
            tensor = torch.cat((gated_half, linear_half))
        whole[name] = tensor
    return whole
