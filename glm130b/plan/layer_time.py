"""Seconds that one GPU needs for one micro-batch: matrix products, attention, memory-bound kernels, all-reduces.

A roof for each kind of work, and no overlap between kinds. The products' operations are ``derived``'s (Narayanan et al.
2021, appendix); the all-reduces are those of Megatron's tensor parallelism (Shoeybi et al. 2019, section 3). Sequence
parallelism splits them in two of half the size, and gathers once more in the backward pass what it kept a part of
(Korthikanti et al. 2022, section 4.2).
"""

import math
import operator
from dataclasses import dataclass
from functools import cached_property

from glm130b.config.sections import RunConfig
from glm130b.plan.activations import DTYPE_BYTES, Activations
from glm130b.plan.cluster import Cluster
from glm130b.plan.kernels import AssumedKernels

ATTENTION_EFFICIENCY = 0.5
"""Of what large matrix products reach; attention counted as if every query saw the whole row (Dao 2023, figure 4:
forward and backward together reach about half of an A100's peak)."""
NODE_LATENCY, NETWORK_LATENCY = 3e-6, 10e-6
"""Seconds of one step of a ring, inside a machine and between machines."""
COLLECTIVES_PER_LAYER = 2
"""All-reduces of the hidden states in a forward pass, and as many in a backward pass."""


@dataclass(frozen=True)
class Work:
    """Seconds of one GPU, by what they are for."""

    matrices: float = 0.0
    """Products with weights, forward and backward."""
    attention: float = 0.0
    pointwise: float = 0.0
    """Norms, activation functions, dropouts, residuals, positions, the loss."""
    gradient_sums: float = 0.0
    """Each micro-batch's gradients added to those before."""
    recomputation: float = 0.0
    """All of it, communication not counted."""
    tensor_communication: float = 0.0
    pipeline_communication: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*map(operator.add, self.parts, other.parts))

    def __mul__(self, factor: float) -> "Work":
        return Work(*(factor * part for part in self.parts))

    @property
    def parts(self) -> tuple[float, ...]:
        """In their order."""
        return tuple(vars(self).values())

    @property
    def total(self) -> float:
        return sum(self.parts)


@dataclass(frozen=True)
class LayerTime:
    """One layer, the embedding and the head, forward and backward of one micro-batch."""

    config: RunConfig
    data_size: int
    cluster: Cluster
    kernels: AssumedKernels

    @cached_property
    def layer(self) -> Work:
        """A backward pass computes and reads twice what the forward pass does; recomputation is that once more."""
        matrices, attention, pointwise = self._matrices, self._attention, self._pointwise
        recompute = self.config.parallel.recompute
        passes = 3 if recompute == "full" else 2
        repeated = {"none": 0.0, "selective": attention, "full": matrices + attention + pointwise}[recompute]
        return Work(
            matrices=3 * matrices,
            attention=3 * attention,
            pointwise=3 * pointwise,
            recomputation=repeated,
            tensor_communication=COLLECTIVES_PER_LAYER * (passes * self._all_reduce + self._extra_gather),
        )

    @cached_property
    def embedding(self) -> Work:
        """A look-up, its sum over the tensor axis, and dropout; where the sequence is cut only after the sum, gradients
        are gathered."""
        return Work(
            pointwise=3 * self._reading(4 * self._sizes.hidden),
            tensor_communication=self._all_reduce + self._extra_gather,
        )

    @cached_property
    def head(self) -> Work:
        """The projection to the vocabulary and the loss over it in fp32."""
        sizes, model = self._sizes, self.config.model
        columns = model.vocab_size // self.config.parallel.tensor
        return Work(
            matrices=3 * self._product(model.hidden_size, columns),
            # The loss in fp32: a cast, the maximum, the exponential, the sum, the division, and back.
            pointwise=self._reading(10 * sizes.logits),
            tensor_communication=self._all_reduce + self._extra_gather,
        )

    def sums(self, parameters: int) -> Work:
        """A weight's gradient is read, cast where sums are in another format, and added to the sum, one after the
        other."""
        precision = self.config.precision
        element = DTYPE_BYTES[precision.dtype]
        is_cast = precision.accumulate_gradients_in_fp32 and element < 4
        per_parameter = element + 4 + 3 * 4 if is_cast else 3 * element
        return Work(gradient_sums=self._reading(per_parameter * parameters))

    @cached_property
    def message(self) -> Work:
        """One hidden state to the next stage and one gradient back, for each chunk."""
        parallel, cluster = self.config.parallel, self.cluster
        if parallel.pipeline == 1:
            return Work()
        is_near = parallel.tensor * self.data_size * parallel.pipeline <= cluster.gpus_per_node
        bandwidth = cluster.ring_bandwidth(2) if is_near else cluster.network_bandwidth
        latency = NODE_LATENCY if is_near else NETWORK_LATENCY
        return Work(pipeline_communication=2 * parallel.virtual_stages * (self._sizes.hidden / bandwidth + latency))

    @cached_property
    def _sizes(self) -> Activations:
        return Activations(self.config, self.kernels)

    @cached_property
    def _matrices(self) -> float:
        """The products of a layer's forward pass: query, key and value; output; the FFN's two."""
        sizes, model = self._sizes, self.config.model
        return (
            self._product(model.hidden_size, sizes.query_columns + 2 * sizes.key_columns)
            + self._product(sizes.query_columns, model.hidden_size)
            + self._product(model.hidden_size, model.ffn_halves * sizes.ffn_columns)
            + self._product(sizes.ffn_columns, model.hidden_size)
        )

    def _product(self, rows: int, columns: int) -> float:
        """[T, rows] x [rows, columns]: arithmetic, then what is read and written; that makes small products slower."""
        sizes = self._sizes
        numbers = sizes.tokens * rows + rows * columns + sizes.tokens * columns
        return 2 * sizes.tokens * rows * columns / self._flops + self._reading(sizes.element * numbers)

    @property
    def _flops(self) -> float:
        return self.cluster.efficiency * self.cluster.accelerator.peak_flops(self.config.precision.dtype)

    @cached_property
    def _attention(self) -> float:
        """Scores and mixed values, forward."""
        sizes = self._sizes
        flops = 4 * sizes.tokens * self.config.data.sequence_length * sizes.query_columns
        return flops / (ATTENTION_EFFICIENCY * self._flops)

    @cached_property
    def _pointwise(self) -> float:
        """What a layer's forward pass reads and writes outside products, in passes over a tensor."""
        sizes, model, fused = self._sizes, self.config.model, self.kernels.fused_pointwise
        scaled_residuals = 2 * 2 * (model.norm_placement == "deepnorm")
        residuals = 2 * (3 if fused else 7)  # bias, dropout and residual
        hidden = sizes.hidden * (2 * model.num_norms + scaled_residuals + residuals)
        gated = model.ffn_halves == 2
        ffn = sizes.element * sizes.tokens * sizes.ffn_columns * ((3 if fused else 11) if gated else 4)
        rows = sizes.element * sizes.tokens
        rotary = rows * (sizes.query_columns + sizes.key_columns) * (2 if fused else 8) * model.has_rotary_positions
        outputs = rows * sizes.query_columns * 4  # put together from the calls' outputs, and laid out for the product
        return self._reading(hidden + ffn + rotary + outputs)

    def _reading(self, num_bytes: float) -> float:
        return num_bytes / self.cluster.memory_bandwidth

    @cached_property
    def _all_reduce(self) -> float:
        """Of the hidden states of all tokens over the tensor axis."""
        sizes, size = self._sizes, self.config.parallel.tensor
        return ring_seconds(
            self.cluster, 2 * sizes.element * sizes.tokens * self.config.model.hidden_size, size=size, stride=1, turns=2
        )

    @property
    def _extra_gather(self) -> float:
        """Of hidden states that sequence parallelism cut: a rank keeps its part of what a column-parallel product read,
        and needs all of it for the gradient of the weights.

        Megatron-core runs this beside the product for the input's gradient, as it runs the all-reduce beside that for
        the weights'; both are counted in full.
        """
        return self._all_reduce / 2 if self.config.parallel.sequence_parallel else 0.0


def ring_seconds(cluster: Cluster, num_bytes: float, *, size: int, stride: int, turns: int) -> float:
    """A ring collective: ``num_bytes`` pass every rank, all but its own share, in ``turns`` rounds: an all-reduce is 2,
    a gather 1."""
    if size == 1:
        return 0.0
    leaves = size * stride > cluster.gpus_per_node
    latency = turns * (size - 1) * (NETWORK_LATENCY if leaves else NODE_LATENCY)
    # Long rings of small messages are trees in NCCL, whose steps grow with the logarithm.
    latency = min(latency, 2 * turns * math.ceil(math.log2(size)) * NETWORK_LATENCY)
    return num_bytes * (size - 1) / size / cluster.ring_bandwidth(size, stride) + latency
