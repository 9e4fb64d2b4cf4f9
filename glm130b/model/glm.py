"""GLM: embedding, layers, final norm, output projection, loss; or one chunk of consecutive layers of that."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from megatron.core.fusions.fused_cross_entropy import fused_vocab_parallel_cross_entropy
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import ColumnParallelLinear, vocab_parallel_cross_entropy
from megatron.core.transformer.enums import ModelType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_block import (
    TransformerBlock,
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from glm130b.config.model import ModelConfig
from glm130b.model.embedding import Embedding
from glm130b.model.gradient_shrink import ShrinkFactors, shrink_gradient
from glm130b.model.kernels import Kernels
from glm130b.model.layer import layer_spec
from glm130b.model.normalization import build_norm
from glm130b.model.rotary import RotaryTable, rotary_table
from glm130b.model.segments import PackedSegments
from glm130b.model.transformer_config import DTYPES


class GLM(MegatronModule):
    """The layers that one pipeline stage holds in a row; with one stage, the whole model.

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
        kernels: Kernels,
        groups: ProcessGroupCollection,
        first_stage: bool,
        last_stage: bool,
        virtual_stage: int | None = None,
    ) -> None:
        super().__init__(config=transformer)
        self.model = model
        self.kernels = kernels
        self.first_stage, self.last_stage = first_stage, last_stage
        self.vp_stage = virtual_stage  # Megatron-core's name, under which its schedules look for it
        if first_stage:
            self.embedding = Embedding(model, transformer, kernels=kernels, groups=groups)
        num_layers = get_num_layers_to_build(transformer, vp_stage=virtual_stage, pp_rank=groups.pp.rank())
        new_norm = partial(build_norm, model, kernels.norm, sequence_parallel=transformer.sequence_parallel)
        self.decoder = TransformerBlock(
            transformer,
            TransformerBlockSubmodules([layer_spec(model, kernels, new_norm)] * num_layers, layer_norm=None),
            pre_process=first_stage,
            post_process=last_stage,
            pg_collection=groups,
            vp_stage=virtual_stage,
        )
        if last_stage and model.norm_placement != "post":
            # Megatron-core would take one norm or another by what is installed; this one is as all the others.
            self.decoder.final_layernorm = new_norm()
        if last_stage:
            self.output_layer = ColumnParallelLinear(
                model.hidden_size,
                model.vocab_size,
                config=transformer,
                init_method=transformer.init_method,
                bias=False,
                # A tied projection uses the embedding itself, or where another stage holds that, a copy.
                skip_weight_param_allocation=model.tie_embedding and first_stage,
                tp_group=groups.tp,
            )

    @property
    def tied_weight(self) -> nn.Parameter | None:
        """This chunk's copy of the tied embedding [V / tensor, H]; None where it has none."""
        if not self.model.tie_embedding:
            return None
        if self.first_stage:
            return self.embedding.word.weight
        return self.output_layer.weight if self.last_stage else None

    def set_input_tensor(self, received: Sequence[Tensor | None]) -> None:
        """Take the previous stage's hidden states [S, B, H]; Megatron-core's schedule calls this."""
        self.decoder.set_input_tensor(received[0])

    def forward(
        self,
        tokens_BS: Tensor,
        positions_B2S: Tensor,
        segments: PackedSegments,
        targets_BS: Tensor | None = None,
        shrink: ShrinkFactors = ShrinkFactors(),  # noqa: B008 - frozen, so one shared default is safe
    ) -> Tensor:
        """Hidden states [S, B, H] for the next stage; on the last stage token losses [B, S] in fp32, or, without
        targets, logits [B, S, V / tensor].

        ``positions_B2S[:, 0]`` is every token's position, ``[:, 1]`` its block position.
        """
        hidden_SBH = self.embedding(tokens_BS, positions_B2S, shrink.input_side) if self.first_stage else None
        if self.model.attention == "causal":
            segments = segments.causal()
        segments = replace(segments, rotary=self._rotary(positions_B2S), positions_BS=positions_B2S[:, 0])
        hidden_SBH = self.decoder(hidden_SBH, attention_mask=None, packed_seq_params=segments)
        if not self.last_stage:
            return hidden_SBH
        weight = None if self.tied_weight is None else shrink_gradient(self.tied_weight, shrink.logit_side)
        logits_SBV, _ = self.output_layer(hidden_SBH, weight=weight)
        if targets_BS is None:
            return logits_SBV.transpose(0, 1).contiguous()
        return self._token_losses(logits_SBV, targets_BS.t().contiguous()).t()

    def _rotary(self, positions_B2S: Tensor) -> RotaryTable | None:
        if not self.model.has_rotary_positions:
            return None
        return rotary_table(
            positions_B2S if self.model.has_block_positions else positions_B2S[:, :1],
            head_dim=self.model.head_size,
            base=self.model.rotary_base,
            table_dtype=DTYPES[self.model.rotary_table],
            dtype=self.config.params_dtype,
            fused=self.kernels.fused_pointwise,
        )

    def _token_losses(self, logits_SBV: Tensor, targets_SB: Tensor) -> Tensor:
        # The fused one gives gradients in bf16, whatever the logits are.
        if self.kernels.fused_pointwise and self.config.bf16:
            return fused_vocab_parallel_cross_entropy(logits_SBV, targets_SB, self.output_layer.tp_group)
        return vocab_parallel_cross_entropy(logits_SBV.float(), targets_SB)
