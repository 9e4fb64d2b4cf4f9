"""Bytes of activations that one micro-batch leaves for its backward pass, tensor by tensor.

The tensors are those that autograd keeps of ``model/layer.py``, ``model/attention*.py``, ``model/ffn.py`` and the
Megatron-core parts in them (Korthikanti et al. 2022, section 4, does the same sum for a GPT). A view keeps the whole
tensor that it looks at. ``tests/numerics/test_plan_memory.py`` holds every sum against what PyTorch keeps, on the CPU;
on a GPU the differences are those of ``AssumedKernels``: dropout keeps a mask of one byte, norms keep their statistics
in fp32, attention no mask.
"""

from dataclasses import dataclass
from functools import cached_property

from glm130b.config.sections import RunConfig
from glm130b.plan.kernels import AssumedKernels

DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}

_INDEX = 8
"""Bytes of a token's number or position."""


@dataclass(frozen=True)
class LayerActivations:
    """Bytes of one layer and micro-batch on one rank."""

    entrance: int
    """The hidden states that enter."""
    attention_inputs: int
    """Query, key and value as they leave the projection: all that ``selective`` keeps of attention's inside."""
    attention_inside: int
    """What attention keeps when nothing is recomputed; it holds ``attention_inputs``' storage itself where it needs
    it."""
    rest: int
    gone_before_attention: int
    """Of ``rest``, what the backward pass has done with when it comes to attention: the FFN's."""

    def kept(self, recompute: str) -> int:
        """From the forward to the backward pass."""
        if recompute == "full":
            return self.entrance
        inside = self.attention_inputs if recompute == "selective" else self.attention_inside
        return self.entrance + inside + self.rest

    def recomputed(self, recompute: str) -> int:
        """What recomputation adds while this layer is on its way back."""
        if recompute == "full":
            return self.attention_inside + self.rest
        if recompute == "selective":
            return max(self.attention_inside - self.attention_inputs - self.gone_before_attention, 0)
        return 0


@dataclass(frozen=True)
class Activations:
    """How much one micro-batch keeps, by sizes of one rank: T tokens, of which norms and dropouts see T' under sequence
    parallelism, Q and G columns of query and of key or value, F of the FFN."""

    config: RunConfig
    kernels: AssumedKernels

    @property
    def element(self) -> int:
        """Bytes of a number."""
        return DTYPE_BYTES[self.config.precision.dtype]

    @property
    def tokens(self) -> int:
        """T."""
        return self.config.batch.micro_size * self.config.data.sequence_length

    @property
    def cut_tokens(self) -> int:
        """T'."""
        parallel = self.config.parallel
        return self.tokens // parallel.tensor if parallel.sequence_parallel else self.tokens

    @property
    def query_columns(self) -> int:
        model = self.config.model
        return model.num_attention_heads * model.head_size // self.config.parallel.tensor

    @property
    def key_columns(self) -> int:
        """G: of keys, and as many of values."""
        model = self.config.model
        return max(model.key_value_heads // self.config.parallel.tensor, 1) * model.head_size

    @property
    def ffn_columns(self) -> int:
        return self.config.model.ffn_hidden_size // self.config.parallel.tensor

    @property
    def hidden(self) -> int:
        """Bytes of the hidden states [T', H] that norms and dropouts see."""
        return self.element * self.cut_tokens * self.config.model.hidden_size

    @cached_property
    def layer(self) -> LayerActivations:
        projected = self.element * self.tokens * (self.query_columns + 2 * self.key_columns)
        return LayerActivations(
            entrance=self.hidden,
            attention_inputs=projected + (self._query if self._groups_queries else 0),
            attention_inside=self._attention_inside(projected),
            rest=self._around_sublayers() + self._query + self._ffn(),
            gone_before_attention=0 if self.config.model.parallel_block else self._ffn(),
        )

    @property
    def positions(self) -> int:
        """Rotary angles, which every chunk makes once for a micro-batch: cosine and sine of each token."""
        model = self.config.model
        return 2 * self.element * self.tokens * model.head_size if model.has_rotary_positions else 0

    @property
    def embedding(self) -> int:
        """Of the first stage, without the hidden states that it hands on; but these are a view of the whole sequence's
        under sequence parallelism, unless dropout makes new ones."""
        model = self.config.model
        whole = self.element * (self.tokens - self.cut_tokens) * model.hidden_size
        indices = (1 + model.num_position_tables) * _INDEX * self.tokens
        indices += self.tokens * (self.config.parallel.tensor > 1)  # which of them are on another rank
        norm = self.element * self.tokens * model.hidden_size + self._norm_statistics(self.tokens)
        around = self._dropout_mask or whole
        return indices + around + (norm if model.embedding_norm else 0)

    @property
    def head(self) -> int:
        """Of the last stage before the logits: the last hidden states and their norm, and where the targets are."""
        has_norm = self.config.model.norm_placement != "post"
        norm = self.hidden + self._norm_extra() if has_norm else 0
        return self.hidden + norm + self.tokens * (2 * _INDEX + 1)

    @property
    def logits(self) -> int:
        """The probabilities of all tokens, which the loss keeps in fp32."""
        return 4 * self.tokens * (self.config.model.vocab_size // self.config.parallel.tensor)

    @property
    def _query(self) -> int:
        """Bytes of [T, Q]."""
        return self.element * self.tokens * self.query_columns

    @property
    def _groups_queries(self) -> bool:
        """Queries of several heads share a head of keys: Megatron-core copies them out of the projection's output,
        which then has gaps between them."""
        return self.key_columns < self.query_columns

    @property
    def _dropout_mask(self) -> int:
        """Of hidden states; on the CPU PyTorch keeps the factors themselves."""
        if not self.config.model.hidden_dropout:
            return 0
        return self.hidden // self.element if self.kernels.on_gpu else self.hidden

    def _around_sublayers(self) -> int:
        """Norms, residuals and dropouts: every tensor [T', H] besides the one that enters."""
        model = self.config.model
        tensors = model.num_norms + (
            not model.parallel_block
        )  # the norms' outputs, and what enters the second sublayer
        return tensors * self.hidden + model.num_norms * self._norm_extra() + 2 * self._dropout_mask

    def _norm_extra(self) -> int:
        """What a norm keeps besides its input; PyTorch's RMSNorm on the CPU keeps the normalised input, too."""
        is_rms = self.config.model.normalization == "rmsnorm"
        written_out = self.hidden if is_rms and not self.kernels.on_gpu else 0
        return written_out + self._norm_statistics(self.cut_tokens)

    def _norm_statistics(self, tokens: int) -> int:
        """Each token's mean and deviation, of an RMSNorm the latter."""
        count = 1 if self.config.model.normalization == "rmsnorm" else 2
        return count * tokens * (4 if self.kernels.on_gpu else self.element)

    def _attention_inside(self, projected: int) -> int:
        """Query, key and value, output, the logarithms of the sums; no scores.

        Values are a view of the projection's output and keep all of it. Contexts and targets are attended to by calls
        of their own, whose outputs are put together in a new tensor, the output projection's input.
        """
        model = self.config.model
        key = self.element * self.tokens * self.key_columns
        outputs = self._query + 4 * self.tokens * (model.num_attention_heads // self.config.parallel.tensor)
        if self._groups_queries and not self.kernels.is_flash:
            inputs = 3 * self._query  # heads of key and value are written out for each query head
        else:
            inputs = projected + (self._query + key if model.has_rotary_positions else 0)
            if self._groups_queries and not model.has_rotary_positions:
                inputs += self._query
        if self.kernels.is_flash and self._is_packed:
            inputs += 2 * key + (0 if model.has_rotary_positions else self._query)
        return inputs + outputs + self._scores()

    @property
    def _is_packed(self) -> bool:
        """Some micro-batch has several segments, whose contexts' keys and values are gathered into copies."""
        objective = self.config.objective
        shares = (objective.mask_share, objective.smask_share, objective.instruction_share)
        several = objective.samples_per_row > 1 and any(share.bounds[1] > 0 for share in shares)
        return several or self.config.batch.micro_size > 1

    def _scores(self) -> int:
        """All that grows with the square of the row: ALiBi's biases, and on the CPU the triangle behind a context, at
        most as large as the whole row's."""
        model, length = self.config.model, self.config.data.sequence_length
        square = self.element * self.config.batch.micro_size * length**2
        if model.positions == "alibi":
            return square * (model.num_attention_heads // self.config.parallel.tensor)
        return 0 if self.kernels.on_gpu or model.attention == "causal" else square

    def _ffn(self) -> int:
        """What the activation function and the second product keep; the first one's input is a norm's output."""
        width = self.element * self.tokens * self.ffn_columns
        if self.config.model.ffn_halves == 1:
            return 2 * width
        return 3 * width if self.kernels.fused_pointwise else 5 * width
