"""From tokens to the first hidden states: word embedding, learned positions, a norm where the model has one."""

from contextlib import nullcontext

from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import (
    VocabParallelEmbedding,
    get_cuda_rng_tracker,
    scatter_to_sequence_parallel_region,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn
from torch.nn.functional import dropout

from glm130b.config.model import ModelConfig
from glm130b.model.gradient_shrink import shrink_gradient
from glm130b.model.kernels import Kernels
from glm130b.model.normalization import build_norm


class Embedding(nn.Module):
    """On the first stage. The word embedding is cut by rows over the tensor axis, everything else is on every rank."""

    def __init__(
        self, model: ModelConfig, transformer: TransformerConfig, *, kernels: Kernels, groups: ProcessGroupCollection
    ) -> None:
        super().__init__()
        self._transformer, self._tensor_group = transformer, groups.tp
        self.word = VocabParallelEmbedding(
            model.vocab_size,
            model.hidden_size,
            init_method=transformer.init_method,
            config=transformer,
            tp_group=groups.tp,
        )
        tables, rows = model.num_position_tables, model.max_positions or 0
        self.position = nn.Embedding(rows, model.hidden_size) if tables else None
        self.block_position = nn.Embedding(rows, model.hidden_size) if tables == 2 else None
        # Every tensor rank normalises the whole sequence here, which is cut only afterwards.
        self.norm = build_norm(model, kernels.norm, sequence_parallel=False) if model.embedding_norm else None

    def forward(self, tokens_BS: Tensor, positions_B2S: Tensor, alpha: float) -> Tensor:
        """Hidden states [S, B, H], or [S / tensor, B, H] under sequence parallelism.

        ``alpha`` shrinks the word embedding's gradient. The look-up is linear in the weight, so that may be done after
        it.
        """
        hidden_BSH = shrink_gradient(self.word(tokens_BS), alpha)
        if self.position is not None:
            hidden_BSH = hidden_BSH + self.position(positions_B2S[:, 0])
        if self.block_position is not None:
            hidden_BSH = hidden_BSH + self.block_position(positions_B2S[:, 1])
        if self.norm is not None:
            hidden_BSH = self.norm(hidden_BSH)
        hidden_SBH = hidden_BSH.transpose(0, 1).contiguous()
        is_cut = self._transformer.sequence_parallel
        if is_cut:
            hidden_SBH = scatter_to_sequence_parallel_region(hidden_SBH, group=self._tensor_group)
        # Ranks that hold other tokens draw other masks; ranks that hold the same ones draw the same.
        with get_cuda_rng_tracker().fork() if is_cut else nullcontext():
            return dropout(hidden_SBH, p=self._transformer.hidden_dropout, training=self.training)
