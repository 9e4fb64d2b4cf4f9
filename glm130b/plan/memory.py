"""Bytes of GPU memory of every pipeline stage, by what they are for.

Weights, gradients and optimizer are those of ``parallel/zero.py``'s DeepSpeed (ZeRO, Rajbhandari et al. 2020);
activations are ``activations.py``'s times the micro-batches in flight. These four and the logits are measured in
``tests/numerics/test_plan_memory.py``. Temporary tensors, buffers and the reserve are estimates.
"""

from dataclasses import dataclass

from glm130b.config import derived
from glm130b.config.sections import RunConfig
from glm130b.plan.activations import DTYPE_BYTES, Activations
from glm130b.plan.in_flight import holdings, peak
from glm130b.plan.kernels import AssumedKernels

RESERVE_BYTES = 2 * 2**30
"""CUDA's context and libraries and the driver's own part of the stated memory, about 1 GiB, and NCCL's buffers for the
rings of three axes, about as much."""
_JOINED_ELEMENTS = 500_000_000
"""Up to so many gradients DeepSpeed copies together to reduce them at once."""
TIGHT = 0.95
"""Share of a GPU's memory above which a plan that fits may still not run: the estimates are no better than that."""
FRAGMENTATION = 0.05
"""Of all that is not one flat buffer for the whole run: gradients, activations, logits and temporary tensors."""


@dataclass(frozen=True)
class StageMemory:
    """One GPU of a stage, in bytes."""

    weights: int
    gradients: int
    """As they are summed over the micro-batches."""
    optimizer: int
    """fp32 master weights and Adam's moments, this rank's share of them."""
    activations: int
    """Kept for the backward pass by all micro-batches in flight, and what recomputation adds at its fullest."""
    logits: int
    """The last stage's probabilities."""
    temporary: int
    """Gradients on their way back and the logits' copies, or if that is more, the optimizer's own at the step."""
    buffers: int
    """ZeRO's bucket and messages between ranks."""
    reserve: int
    """CUDA, NCCL and fragmentation."""
    on_host: int = 0
    """In the CPU's memory: the optimizer, where it is offloaded."""

    @property
    def total(self) -> int:
        """On the GPU."""
        static = self.weights + self.gradients + self.optimizer + self.buffers + self.reserve
        return static + self.activations + self.logits + self.temporary


def memory_per_stage(
    config: RunConfig, *, data_size: int, micro_batches: int, kernels: AssumedKernels
) -> tuple[StageMemory, ...]:
    """One GPU of every stage in a step of ``micro_batches`` on each of ``data_size`` replicas."""
    held = derived.parameters_per_stage(config, config.parallel.tensor)
    one = Activations(config, kernels)
    chunks = derived.layers_per_chunk(config)
    return tuple(
        _stage(one, parameters, data_size, *_activations(one, stage, list(map(len, chunks[stage])), micro_batches))
        for stage, parameters in enumerate(held)
    )


def gradient_bytes(config: RunConfig) -> int:
    """Of one parameter's summed gradient."""
    precision = config.precision
    return 4 if precision.accumulate_gradients_in_fp32 else DTYPE_BYTES[precision.dtype]


def _stage(one: Activations, parameters: int, data_size: int, kept: int, logits: int) -> StageMemory:
    config, parallel, element = one.config, one.config.parallel, one.element
    share = -(-parameters // data_size)
    states = share * (12 if config.optimizer.name == "adamw" else 4)
    offloaded = parallel.offload_optimizer
    gradients = (share if parallel.zero_stage == 2 else parameters) * gradient_bytes(config)
    # Gradients of the share, flattened and in fp32, when no activation is left.
    at_step = share * (DTYPE_BYTES["fp32"] + element) - kept - logits
    temporary = max(_temporary(one, has_head=logits > 0), at_step)
    return StageMemory(
        weights=parameters * element,
        gradients=gradients,
        # What is offloaded passes through a copy of the share in the model's format.
        optimizer=share * element if offloaded else states,
        activations=kept,
        logits=logits,
        temporary=temporary,
        buffers=_buffers(one, parameters),
        reserve=RESERVE_BYTES + int(FRAGMENTATION * (gradients + kept + logits + temporary)),
        on_host=states if offloaded else 0,
    )


def _activations(one: Activations, stage: int, num_layers: list[int], micro_batches: int) -> tuple[int, int]:
    """Activations and logits of a stage with chunks of ``num_layers`` at the fullest moment; recomputation begins when
    the logits are gone."""
    parallel, layer = one.config.parallel, one.layer
    chunks = [one.positions + layers * layer.kept(parallel.recompute) for layers in num_layers]
    if stage == 0:
        chunks[0] += one.embedding
    moments = holdings(
        stage=stage,
        stages=parallel.pipeline,
        virtual_stages=parallel.virtual_stages,
        micro_batches=micro_batches,
    )
    kept, recomputed = peak(moments, chunks), layer.recomputed(parallel.recompute)
    if stage < parallel.pipeline - 1:
        return kept + recomputed, 0
    return kept + max(one.head, recomputed - one.logits), one.logits


def _temporary(one: Activations, *, has_head: bool) -> int:
    """The FFN's or the logits' gradients on their way back, whichever are more, and one weight's gradient."""
    model, tensor = one.config.model, one.config.parallel.tensor
    layer = one.element * one.tokens * one.ffn_columns * (2 * model.ffn_halves + 1) + 2 * one.hidden
    logits = one.logits * one.element // 4 if has_head else 0
    largest = (
        max(model.vocab_size if has_head else 0, model.ffn_halves * model.ffn_hidden_size) // tensor * model.hidden_size
    )
    return max(layer, logits) + one.element * largest


def _buffers(one: Activations, parameters: int) -> int:
    """ZeRO's bucket, the whole sequence gathered under sequence parallelism, a hidden state each way, the input side of
    a tied embedding's gradient where one stage has both sides."""
    config, parallel, precision = one.config, one.config.parallel, one.config.precision
    bucket = parallel.reduce_bucket_elements
    sums_in_fp32 = precision.dtype == "bf16" and precision.accumulate_gradients_in_fp32
    if sums_in_fp32 and parallel.zero_stage == 1 and not parallel.offload_optimizer:
        # DeepSpeed's optimizer for this reduces its flat sums in place, but joins those that are below its own size.
        bucket = 0 if parameters > _JOINED_ELEMENTS else parameters
    largest = config.model.ffn_hidden_size // parallel.tensor * config.model.hidden_size
    offloading = DTYPE_BYTES["fp32"] * largest if parallel.offload_optimizer else 0
    gathered = one.element * one.tokens * config.model.hidden_size if one.cut_tokens < one.tokens else 0
    messages = 2 * one.hidden if parallel.pipeline > 1 else 0
    model, has_both_sides = config.model, parallel.pipeline == 1 and config.model.tie_embedding
    is_told_apart = has_both_sides and config.logging.embedding_sides
    side = DTYPE_BYTES["fp32"] * model.vocab_size // parallel.tensor * model.hidden_size if is_told_apart else 0
    return bucket * gradient_bytes(config) + offloading + gathered + messages + side
