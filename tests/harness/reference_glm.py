"""The oracle: every member of the GLM family in plain PyTorch, one process, a dense attention mask, no dropout.

Written from the papers (see ``reference_layers`` for the layers), not from the library's model; for fp32 and fp64.
Shapes: B rows, S sequence, H hidden, V vocabulary.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from glm130b.config.model import ModelConfig
from tests.harness.reference_layers import Norm, build_layer

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


def shrink_gradient(weight: Tensor, alpha: float) -> Tensor:
    """``weight`` in the forward pass, to the last bit; its gradient times ``alpha`` in the backward pass."""
    return weight.detach() + alpha * (weight - weight.detach())


def row_losses(logits_BSV: Tensor, targets_BS: Tensor, loss_weights_BS: Tensor) -> Tensor:
    """Loss of every row [B], the weighted sum of its token losses, in fp32 (fp64 for fp64 logits)."""
    dtype = torch.promote_types(logits_BSV.dtype, torch.float32)
    log_probabilities_BSV = logits_BSV.to(dtype).log_softmax(dim=-1)
    token_losses_BS = -log_probabilities_BSV.gather(-1, targets_BS[..., None]).squeeze(-1)
    return (token_losses_BS * loss_weights_BS).sum(dim=1)


class Embedding(nn.Module):
    """Words, learned positions where the model has them, and the norm that BLOOM puts on their sum."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(model.vocab_size, model.hidden_size)
        self.position, self.block_position = None, None
        if model.positions in ("learned", "learned_2d"):
            self.position = nn.Embedding(model.max_positions or 0, model.hidden_size)
        if model.positions == "learned_2d":
            self.block_position = nn.Embedding(model.max_positions or 0, model.hidden_size)
        self.norm = Norm(model) if model.embedding_norm else None

    def forward(self, tokens_BS: Tensor, positions_B2S: Tensor, alpha: float) -> Tensor:
        x_BSH = functional.embedding(tokens_BS, shrink_gradient(self.word.weight, alpha))
        for table, positions_BS in zip((self.position, self.block_position), positions_B2S.unbind(dim=1), strict=True):
            if table is not None:
                x_BSH = x_BSH + table(positions_BS)
        return x_BSH if self.norm is None else self.norm(x_BSH)


class Decoder(nn.Module):
    """The layers and the norm after the last of them, which post-norm layers do not need."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(build_layer(model) for _ in range(model.num_layers))
        self.final_layernorm = None if model.norm_placement == "post" else Norm(model)

    def forward(self, x_BSH: Tensor, positions_B2S: Tensor, visible_BSS: Tensor) -> Tensor:
        for layer in self.layers:
            x_BSH = layer(x_BSH, positions_B2S, visible_BSS)
        return x_BSH if self.final_layernorm is None else self.final_layernorm(x_BSH)


class ReferenceGLM(nn.Module):
    """The whole model; ``state_dict`` has the names and whole shapes of checkpoints, so whole tensors load directly."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.causal = model.attention == "causal"
        self.embedding = Embedding(model)
        self.decoder = Decoder(model)
        self.output_layer = None if model.tie_embedding else nn.Linear(model.hidden_size, model.vocab_size, bias=False)

    def forward(
        self,
        tokens_BS: Tensor,
        positions_B2S: Tensor,
        segments: Segments,
        *,
        input_alpha: float = 1.0,
        logit_alpha: float = 1.0,
    ) -> Tensor:
        """Logits [B, S, V]. The alphas shrink the gradient of the word embedding, on its look-up and on its logit side;
        an output layer of its own is not shrunk."""
        if self.causal:  # all of a segment is target
            segments = [[(start, 0, context + target) for start, context, target in row] for row in segments]
        visible_BSS = visibility(segments, tokens_BS.shape[1]).to(tokens_BS.device)
        x_BSH = self.embedding(tokens_BS, positions_B2S, input_alpha)
        hidden_BSH = self.decoder(x_BSH, positions_B2S, visible_BSS)
        if self.output_layer is not None:
            return self.output_layer(hidden_BSH)
        return hidden_BSH @ shrink_gradient(self.embedding.word.weight, logit_alpha).T


def from_released_layout(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names and row order for the tensors of an unsplit (TP 1) checkpoint in the released layout.

    The rows of q, k and v are ordered alike; the released FFN has its linear half first, ours the gated half.
    """
    renamed = {
        "transformer.word_embeddings.": "embedding.word.",
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
