"""GLM: embedding, DeepNorm layers, final LayerNorm, tied output projection, loss; or one pipeline stage of that."""

from collections.abc import Sequence

from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import ColumnParallelLinear, VocabParallelEmbedding, vocab_parallel_cross_entropy
from megatron.core.transformer.enums import ModelType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_block import (
    TransformerBlock,
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn
from torch.nn.functional import dropout

from glm130b.config.sections import ModelConfig
from glm130b.model.attention import PackedSegments
from glm130b.model.deepnorm import LAYER_NORM, deepnorm_layer_spec
from glm130b.model.gradient_shrink import ShrinkFactors, shrink_gradient
from glm130b.model.rotary import rotary_angles


class GLM(MegatronModule):
    """The part of a GLM that one pipeline stage holds; with one stage, all of it.

    Sizes come from ``model``, the cutting and the number formats from ``transformer`` (see ``transformer_config``), the
    process groups from ``groups``. Weights are undefined until ``initialization.initialize_`` or a checkpoint fills
    them.
    """

    model_type = ModelType.encoder_or_decoder
    """Read by Megatron-core's schedules."""

    def __init__(
        self,
        model: ModelConfig,
        transformer: TransformerConfig,
        *,
        groups: ProcessGroupCollection,
        first_stage: bool,
        last_stage: bool,
    ) -> None:
        super().__init__(config=transformer)
        self.model = model
        self.first_stage, self.last_stage = first_stage, last_stage
        if first_stage:
            self.embedding = VocabParallelEmbedding(
                model.vocab_size,
                model.hidden_size,
                init_method=transformer.init_method,
                config=transformer,
                tp_group=groups.tp,
            )
        num_layers = get_num_layers_to_build(transformer, pp_rank=groups.pp.rank())
        self.decoder = TransformerBlock(
            transformer,
            TransformerBlockSubmodules([deepnorm_layer_spec()] * num_layers, layer_norm=LAYER_NORM),
            pre_process=first_stage,
            post_process=last_stage,
            pg_collection=groups,
        )
        if last_stage:
            self.output_layer = ColumnParallelLinear(
                model.hidden_size,
                model.vocab_size,
                config=transformer,
                init_method=transformer.init_method,
                bias=False,
                # With one stage the projection uses the embedding itself; the last of several holds a copy.
                skip_weight_param_allocation=first_stage,
                tp_group=groups.tp,
            )

    @property
    def tied_weight(self) -> nn.Parameter | None:
        """This stage's copy of the embedding [V / tensor, H]; None on a middle stage."""
        if self.first_stage:
            return self.embedding.weight
        return self.output_layer.weight if self.last_stage else None

    def set_input_tensor(self, received: Sequence[Tensor | None]) -> None:
        """Take the previous stage's hidden states [S, B, H]; Megatron-core's schedule calls this."""
        self.decoder.set_input_tensor(received[0])

    def forward(
        self,
        tokens_BS: Tensor,
        positions_BS: Tensor,
        segments: PackedSegments,
        targets_BS: Tensor | None = None,
        shrink: ShrinkFactors = ShrinkFactors(),  # noqa: B008 - frozen, so one shared default is safe
    ) -> Tensor:
        """Hidden states [S, B, H] for the next stage; on the last stage token losses [B, S] in fp32, or, without
        targets, logits [B, S, V / tensor]."""
        hidden_SBH = self._embed(tokens_BS, shrink) if self.first_stage else None
        angles = rotary_angles(positions_BS, head_dim=self.config.kv_channels, base=self.model.rotary_base)
        hidden_SBH = self.decoder(hidden_SBH, attention_mask=None, rotary_pos_emb=angles, packed_seq_params=segments)
        if not self.last_stage:
            return hidden_SBH
        assert self.tied_weight is not None
        weight = shrink_gradient(self.tied_weight, shrink.logit_side)
        logits_SBV, _ = self.output_layer(hidden_SBH, weight=weight)
        if targets_BS is None:
            return logits_SBV.transpose(0, 1).contiguous()
        return vocab_parallel_cross_entropy(logits_SBV.float(), targets_BS.t().contiguous()).t()

    def _embed(self, tokens_BS: Tensor, shrink: ShrinkFactors) -> Tensor:
        """Token embeddings [S, B, H]. The look-up is linear in the weight, so its gradient may be shrunk after it."""
        hidden_SBH = shrink_gradient(self.embedding(tokens_BS), shrink.input_side).transpose(0, 1).contiguous()
        return dropout(hidden_SBH, p=self.config.hidden_dropout, training=self.training)
