"""DeepSpeed's ZeRO: reduces gradients over the data axis, unscales, clips by the global norm, asks whether to go on,
steps, gathers the weights.

Megatron's schedule runs forward and backward; each ``step`` is one whole accumulation.
"""

import io
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn

from glm130b.config.sections import RunConfig
from glm130b.model.sharding import ParameterShard, parameter_shards
from glm130b.model.stage import Stage
from glm130b.parallel.deepspeed_config import deepspeed_config
from glm130b.parallel.embedding_sides import build_embedding_sides
from glm130b.parallel.gradient_norms import GradientReader
from glm130b.parallel.optimizer import build_optimizer
from glm130b.parallel.ownership import Owned
from glm130b.parallel.parameter_parts import ParameterParts
from glm130b.parallel.shared_gradients import renew_tied_copy, sum_shared_gradients
from glm130b.parallel.topology import Topology
from glm130b.parallel.weight_norms import WeightReader


@dataclass(frozen=True)
class GradientNorms:
    """L2 norms of a step's mean gradient, unscaled, before clipping; the same numbers on every rank."""

    whole: float
    """Over all parameters."""
    embedding: float
    """Of the word embedding; with tied weights that is the output projection, too."""


NOT_FINITE = GradientNorms(whole=math.inf, embedding=math.inf)

Permit = Callable[[GradientNorms], bool]
"""Whether a step with this gradient may change the weights."""


def always(norms: GradientNorms) -> bool:
    return True


@dataclass(frozen=True)
class StepOutcome:
    """What one optimizer step did."""

    gradient_norm: float
    """Global L2 norm over all parameters, unscaled, before clipping; inf when the step overflowed."""
    embedding_gradient_norm: float
    """The word embedding's part of it; inf when the step overflowed."""
    applied: bool
    """False when an overflow or a veto left weights, moments and the optimizer's step count as they were."""
    overflowed: bool
    """Some element of the gradient was not finite on some rank."""
    loss_scale: float
    """Scale of the next step; 1.0 outside fp16."""
    statistics: Mapping[str, float] = field(default_factory=dict)
    """More of the step's numbers, by their names in a record."""


_SCALER_STATE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What fp16's loss scaler remembers; its other attributes are the config's to say."""


@dataclass(frozen=True)
class Fragment:
    """The part of one parameter whose fp32 state this data-parallel rank owns."""

    parameter: nn.Parameter
    start: int
    """First element of the part, in the flattened local parameter."""
    state: dict[str, Tensor]
    """Flat fp32 views of equal length: ``master`` and the optimizer's moments (``exp_avg``, ``exp_avg_sq`` for
    AdamW)."""


@dataclass
class _Update:
    """What one step has come to."""

    permit: Permit = always
    loss_scale: float = 1.0
    """Of the backward passes; the engine's own is the next step's as soon as DeepSpeed has looked for an overflow."""
    reads_weights: bool = False
    whole: float = math.inf
    """DeepSpeed's global norm, by this rank's sum."""
    norms: GradientNorms = NOT_FINITE
    is_permitted: bool | None = None
    """None until the optimizers ask."""
    statistics: dict[str, float] = field(default_factory=dict)
    weights: WeightReader | None = None


class ZeroEngine:
    """One optimizer over a stage's parameters, its state sharded over the data axis."""

    def __init__(self, config: RunConfig, stage: Stage, topology: Topology) -> None:
        deepspeed.init_distributed(dist_backend="nccl" if topology.device.type == "cuda" else "gloo", verbose=False)
        if config.parallel.offload_optimizer and topology.device.type == "cuda":
            # The step is the CPU's then, and on the one thread that a process has it would take seconds.
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // torch.cuda.device_count()))
        optimizer = build_optimizer(
            config.optimizer, stage, device=topology.device, ask=self._may_update, tell=self._updated
        )
        # It warns of optimizers that it does not know by name, such as PyTorch's AdamW that asks first.
        logging.getLogger("DeepSpeed").addFilter(lambda record: "untested optimizer" not in record.getMessage())
        with redirect_stdout(io.StringIO()):  # its bf16 optimizer prints memory tables, whatever the log level
            self._engine, *_ = deepspeed.initialize(
                model=stage,
                optimizer=optimizer,
                config=deepspeed_config(config),
                mpu=_ModelParallelUnit(topology),
                dist_init_required=False,
            )
        self._optimizer = self._engine.optimizer
        self._is_fp16 = config.precision.dtype == "fp16"
        self._is_offloaded = config.parallel.offload_optimizer
        # In fp32 it would look at the norm alone, which leaves out the copies that other ranks count.
        self._optimizer.check_grad_overflow = True
        if self._is_fp16:
            # An overflow at the smallest scale is a skipped step like any other, for the stability guard to judge.
            self._optimizer.loss_scaler.raise_error_at_min_scale = False
        self._stage = stage
        self._topology = topology
        self._largest_norm = config.optimizer.clip_gradient_norm
        self._flat_masters: list[Tensor] = [group["params"][0] for group in self._optimizer.optimizer.param_groups]
        self._owned = [part for shard in parameter_shards(stage) if (part := _owned(shard, topology)) is not None]
        self._parts = ParameterParts(stage.model, self._owned)
        self._sides = build_embedding_sides(stage, topology) if config.logging.embedding_sides else None
        self._reader = GradientReader(self._owned, self._parts, self._sides, topology)
        self._update = _Update()
        # From stage 2 on gradients are reduced as they come, by hooks that only the engine's own forward re-arms.
        self.wrapper: nn.Module | None = self._engine if config.parallel.zero_stage >= 2 else None
        """What the forward pass must go through instead of the model, if anything."""

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the current loss scale."""
        return self._engine.scale(loss)

    def gradient_of(self, parameter: nn.Parameter) -> Tensor:
        """The gradient accumulated so far in this step, not yet reduced over the data axis."""
        for home in ("_hp_grad", "grad_accum"):  # where bf16 and fp16 keep their fp32 sums
            if (gradient := getattr(parameter, home, None)) is not None:
                return gradient
        assert parameter.grad is not None
        return parameter.grad

    def finish_gradients(self) -> None:
        """Add up what several ranks hold of a gradient, after the last micro-batch. Collective over the job."""
        if self._sides is not None:
            self._sides.read_apart(self.gradient_of)
        sum_shared_gradients(self._stage, self._topology, self.gradient_of)

    def step(self, learning_rate: float, *, permit: Permit = always, read_weights: bool = False) -> StepOutcome:
        """Take one optimizer step with the accumulated gradients and clear them. Collective over the whole job.

        ``permit`` is called once on every rank when the gradients are reduced and nothing has changed yet, and must
        answer alike everywhere; where it answers no, weights, moments and step count stay as they are, bit for bit
        (fp16's loss scale has counted a good step by then). It is not called when the gradient is not finite, which
        never changes anything but the loss scale. ``read_weights`` adds the numbers of the weights and of their change
        to the statistics, where the update is applied.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        # What remains of it when DeepSpeed finds an overflow, and calls no optimizer, is a step that is not finite.
        update = self._update = _Update(permit=permit, loss_scale=self.loss_scale, reads_weights=read_weights)
        self._engine.step()
        if update.is_permitted:
            renew_tied_copy(self._stage, self._topology)
        overflowed = update.norms == NOT_FINITE
        if overflowed and self._is_offloaded:
            # It forgets to, and would add every later gradient to the one that is not finite.
            self._optimizer.averaged_gradients = dict.fromkeys(self._optimizer.averaged_gradients)
        if self._sides is not None:
            self._sides.clear()
        return StepOutcome(
            gradient_norm=update.norms.whole,
            embedding_gradient_norm=update.norms.embedding,
            applied=bool(update.is_permitted),
            overflowed=overflowed,
            loss_scale=self.loss_scale,
            statistics=update.statistics | (update.weights.statistics() if update.weights else {}),
        )

    @torch.no_grad()
    def _may_update(self) -> bool:
        """What the optimizers ask, once for each parameter group: decided at the first, it holds for the step."""
        update = self._update
        about_to_step = self._optimizer.optimizer.param_groups
        if update.is_permitted is None:
            update.whole = float(self._optimizer._global_grad_norm)
            norms = self._read_gradient({id(group["params"][0]) for group in about_to_step})
            if norms is not None:
                update.norms = GradientNorms(norms.pop("gradient_norm"), norms.pop("embedding_gradient_norm"))
                update.statistics = norms
            update.is_permitted = update.norms != NOT_FINITE and update.permit(update.norms)
            if update.is_permitted and update.reads_weights:
                update.weights = WeightReader(self._owned, self._parts, self._flat_masters, self._topology)
        if update.is_permitted and self.loss_scale != update.loss_scale:
            # DeepSpeed has taken the next step's scale, which has just doubled; unclipped, half the gradient is left.
            for group in about_to_step:
                group["params"][0].grad *= self._divisor(self.loss_scale) / self._divisor(update.loss_scale)
        return update.is_permitted

    def _updated(self, groups: Sequence[dict[str, Any]]) -> None:
        """What the optimizers tell, after each parameter group."""
        if (reader := self._update.weights) is not None:
            for index, flat in enumerate(self._flat_masters):
                for group in groups:
                    if group["params"][0] is flat:
                        reader.updated(index, group, self._optimizer.optimizer.state)

    def _read_gradient(self, ready: set[int]) -> dict[str, float] | None:
        """At the first question. The ``ready`` groups, which the optimizer is about to step, have been unscaled and
        clipped by then; the others are as the reduction left them."""
        loss_scale = self._update.loss_scale
        gradients, factors = [], []
        for index, flat in enumerate(self._flat_masters):
            is_ready = id(flat) in ready
            gradient = flat.grad if is_ready or self._is_offloaded else self._unflattened(index)
            assert gradient is not None
            gradients.append(gradient)
            factors.append((self._divisor(self.loss_scale) if is_ready else 1.0) / loss_scale)
        return self._reader.read(gradients, factors, whole=self._update.whole, loss_scale=loss_scale)

    def _divisor(self, loss_scale: float) -> float:
        """What unscales and clips a gradient, by DeepSpeed's formula; it takes the next step's loss scale."""
        whole = self._update.whole * self._update.loss_scale / loss_scale
        return max(1.0, (whole + 1e-6) / self._largest_norm) * loss_scale

    def _unflattened(self, group: int) -> Tensor:
        """A copy of the reduced gradient of a later group, the vectors, which DeepSpeed has in pieces still."""
        return torch.cat([piece.reshape(-1) for piece in self._optimizer.averaged_gradients[group]])

    @property
    def loss_scale(self) -> float:
        return float(self._optimizer.loss_scale) if self._is_fp16 else 1.0

    @property
    def at_minimum_scale(self) -> bool:
        """Whether fp16's loss scale can go no lower."""
        return self._is_fp16 and self.loss_scale <= self._optimizer.loss_scaler.min_scale

    def fragments(self) -> Iterator[Fragment]:
        """This rank's fp32 state, as views: writing to them and calling ``publish_master_weights`` restores a run."""
        self._ensure_optimizer_state()
        for part in self._owned:
            flat = self._flat_masters[part.group]
            moments = self._optimizer.optimizer.state[flat]
            tensors = {"master": flat.detach()} | {
                n: value for n, value in moments.items() if value.shape == flat.shape
            }
            yield Fragment(
                parameter=part.shard.parameter,
                start=part.parameter_start,
                state={name: part.of(tensor) for name, tensor in tensors.items()},
            )

    def publish_master_weights(self) -> None:
        """Round the fp32 master weights into the model's own and gather them over the data axis."""
        self._optimizer.update_lp_params()

    def counters(self) -> dict[str, Any]:
        """The state that has no shape: optimizer step count and fp16 loss scaler."""
        scaler = vars(self._optimizer.loss_scaler) if self._is_fp16 else {}
        steps = [float(state["step"]) for state in self._optimizer.optimizer.state.values() if "step" in state]
        return {
            "optimizer_step": max(steps, default=0.0),
            "loss_scaler": {name: scaler[name] for name in _SCALER_STATE if scaler},
        }

    def restore_counters(self, counters: dict[str, Any]) -> None:
        self._ensure_optimizer_state()
        for state in self._optimizer.optimizer.state.values():
            if "step" in state:
                state["step"].fill_(counters["optimizer_step"])
        if self._is_fp16:
            saved = counters["loss_scaler"]
            vars(self._optimizer.loss_scaler).update({name: saved[name] for name in _SCALER_STATE if name in saved})

    def _ensure_optimizer_state(self) -> None:
        """Make Adam's moments on a fresh engine, as its first step would."""
        flat_optimizer = self._optimizer.optimizer
        if isinstance(flat_optimizer, torch.optim.SGD):
            return
        for group in flat_optimizer.param_groups:
            for flat in group["params"]:
                state = flat_optimizer.state[flat]
                if "exp_avg" not in state:
                    # The fused kernel reads the step count on the GPU, the others on the CPU.
                    state["step"] = torch.zeros((), device=flat.device if group.get("fused") else "cpu")
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(flat), torch.zeros_like(flat)


class _ModelParallelUnit:
    """The grid as DeepSpeed asks for it: ``get_<axis>_group``, ``_rank`` and ``_world_size`` of four axes.

    Nothing else is answered, because DeepSpeed probes with ``hasattr`` for what a unit can do.
    """

    def __init__(self, topology: Topology) -> None:
        for name, axis in (
            ("data_parallel", topology.data),
            ("tensor_model_parallel", topology.tensor),
            ("pipeline_model_parallel", topology.pipeline),
            ("model_parallel", topology.model),
        ):
            setattr(self, f"get_{name}_group", lambda axis=axis: axis.group)
            setattr(self, f"get_{name}_rank", lambda axis=axis: axis.rank)
            setattr(self, f"get_{name}_world_size", lambda axis=axis: axis.size)


def _owned(shard: ParameterShard, topology: Topology) -> Owned | None:
    """What this data rank owns of a parameter, as DeepSpeed has noted on it; None where others own all of it."""
    if (mapping := shard.parameter._hp_mapping) is None:  # type: ignore[attr-defined]
        return None
    address = mapping.hp_fragment_address
    return Owned(
        shard=shard,
        group=mapping.param_group_index,
        group_start=address.start,
        parameter_start=mapping.lp_fragment_address.start,
        length=address.numel,
        is_counted=not (shard.is_tied_copy or (shard.is_replicated and topology.tensor.rank > 0)),
    )
