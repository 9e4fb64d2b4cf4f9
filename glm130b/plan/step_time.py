"""Seconds of a whole step: the pipeline's, and what follows it."""

from dataclasses import dataclass
from functools import cached_property

from glm130b.config import derived
from glm130b.config.sections import RunConfig
from glm130b.plan.activations import DTYPE_BYTES
from glm130b.plan.cluster import Cluster
from glm130b.plan.kernels import AssumedKernels
from glm130b.plan.layer_time import LayerTime, Work, ring_seconds
from glm130b.plan.memory import gradient_bytes

_ADAM_BYTES = 60
"""Read and written for one parameter of the share: norm and clipping of its gradient, master weight and two moments in
and out, the weight in the model's format."""
_HOST_BANDWIDTH, _HOST_LINK = 10e9, 20e9
"""Bytes/s of the CPU's memory for one GPU's share of an offloaded step, and of the link between them."""


@dataclass(frozen=True)
class StepTime:
    """One step, in seconds."""

    work: Work
    """The busiest stage's, all its micro-batches."""
    bubble: float
    """What that stage waits for others (Narayanan et al. 2021, section 2.2)."""
    data_communication: float
    """Gradients reduced over the data axis and weights gathered, after the last micro-batch; nothing hides it."""
    embedding_communication: float
    """The tied embedding's gradients summed between the first and the last stage, and its weights sent."""
    optimizer: float

    @property
    def total(self) -> float:
        after = self.data_communication + self.embedding_communication + self.optimizer
        return self.work.total + self.bubble + after

    @property
    def bubble_share(self) -> float:
        """Of the time that the pipeline takes."""
        return self.bubble / (self.work.total + self.bubble)


@dataclass(frozen=True)
class StepModel:
    """Step times of a config on a cluster, by batch size."""

    config: RunConfig
    data_size: int
    cluster: Cluster
    kernels: AssumedKernels

    def step(self, batch_size: int) -> StepTime:
        """A step of ``batch_size`` rows.

        The slowest stage is never idle between its first and its last micro-batch; filling and emptying the pipeline
        costs every other stage's time once, divided by the chunks that take turns.
        """
        micro_batches = derived.num_micro_batches(self.config, batch_size=batch_size, data_size=self.data_size)
        slowest = max(self._stages, key=lambda work: work.total)
        others = sum(work.total for work in self._stages) - slowest.total
        reductions = micro_batches if self.config.parallel.zero_stage == 2 else 1
        return StepTime(
            work=slowest * micro_batches,
            bubble=others / self.config.parallel.virtual_stages,
            data_communication=self._gathering + reductions * self._reduction,
            embedding_communication=self._embedding,
            optimizer=self._optimizer,
        )

    @property
    def layer_seconds(self) -> float:
        """One layer, forward and backward of one micro-batch."""
        return self._times.layer.total

    def model_utilization(self, batch_size: int) -> float:
        """MFU: the model's own operations (PaLM, appendix B) over what the GPUs could do in the time."""
        return self._utilization(derived.model_flops_per_sample(self.config), batch_size)

    def hardware_utilization(self, batch_size: int) -> float:
        """HFU: recomputation counted."""
        return self._utilization(derived.hardware_flops_per_sample(self.config), batch_size)

    @property
    def num_gpus(self) -> int:
        return derived.replica_size(self.config) * self.data_size

    def _utilization(self, flops: int, batch_size: int) -> float:
        peak = self.num_gpus * self.cluster.accelerator.peak_flops(self.config.precision.dtype)
        return flops * batch_size / self.step(batch_size).total / peak

    @cached_property
    def _times(self) -> LayerTime:
        return LayerTime(self.config, self.data_size, self.cluster, self.kernels)

    @cached_property
    def _stages(self) -> tuple[Work, ...]:
        """Each stage's work for one micro-batch."""
        times = self._times
        held = derived.parameters_per_stage(self.config, self.config.parallel.tensor)
        works = [
            times.layer * layers + times.sums(parameters) + times.message
            for layers, parameters in zip(derived.layers_per_stage(self.config), held, strict=True)
        ]
        works[0] += times.embedding
        works[-1] += times.head
        return tuple(works)

    @property
    def _largest(self) -> int:
        """Parameters of the fullest process."""
        return max(derived.parameters_per_stage(self.config, self.config.parallel.tensor))

    @property
    def _reduction(self) -> float:
        """DeepSpeed all-reduces its buckets, at stage 1 and at stage 2."""
        return self._over_data(2 * self._largest * gradient_bytes(self.config), turns=2)

    @property
    def _gathering(self) -> float:
        return self._over_data(self._largest * DTYPE_BYTES[self.config.precision.dtype], turns=1)

    def _over_data(self, num_bytes: float, *, turns: int) -> float:
        stride = self.config.parallel.tensor
        return ring_seconds(self.cluster, num_bytes, size=self.data_size, stride=stride, turns=turns)

    @property
    def _embedding(self) -> float:
        model, parallel = self.config.model, self.config.parallel
        if not model.tie_embedding or parallel.pipeline == 1:
            return 0.0
        weights = model.vocab_size // parallel.tensor * model.hidden_size
        num_bytes = weights * (gradient_bytes(self.config) + DTYPE_BYTES[self.config.precision.dtype])
        distance = parallel.tensor * self.data_size * (parallel.pipeline - 1)
        near = distance < self.cluster.gpus_per_node
        return num_bytes / (self.cluster.ring_bandwidth(2) if near else self.cluster.network_bandwidth)

    @property
    def _optimizer(self) -> float:
        share = self._largest / self.data_size
        if not self.config.parallel.offload_optimizer:
            return share * _ADAM_BYTES / self.cluster.memory_bandwidth
        crossing = gradient_bytes(self.config) + DTYPE_BYTES[self.config.precision.dtype]
        return share * (_ADAM_BYTES / _HOST_BANDWIDTH + crossing / _HOST_LINK)
