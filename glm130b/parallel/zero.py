"""DeepSpeed's ZeRO: reduces gradients over the data axis, unscales, clips by the global norm, asks whether to go on,
steps, gathers the weights.

Megatron's schedule runs forward and backward; each ``step`` is one whole accumulation.
"""

import io
import logging
import os
from collections.abc import Iterator, Mapping
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
from glm130b.parallel.optimizer import build_optimizer
from glm130b.parallel.ownership import Owned
from glm130b.parallel.shared_gradients import renew_tied_copy, sum_shared_gradients
from glm130b.parallel.topology import Topology
from glm130b.parallel.update import NOT_FINITE, Permit, Update, always


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


class ZeroEngine:
    """One optimizer over a stage's parameters, its state sharded over the data axis."""

    def __init__(self, config: RunConfig, stage: Stage, topology: Topology) -> None:
        deepspeed.init_distributed(dist_backend="nccl" if topology.device.type == "cuda" else "gloo", verbose=False)
        if config.parallel.offload_optimizer and topology.device.type == "cuda":
            # The step is the CPU's then, and on the one thread that a process has it would take seconds.
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // torch.cuda.device_count()))
        optimizer = build_optimizer(
            config.optimizer,
            stage,
            device=topology.device,
            ask=lambda: self._update.may_update(),
            tell=lambda groups: self._update.updated(groups),
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
        self._owned = [part for shard in parameter_shards(stage) if (part := _owned(shard, topology)) is not None]
        self._sides = build_embedding_sides(stage, topology) if config.logging.embedding_sides else None
        self._update = Update(
            config,
            self._optimizer,
            loss_scale=lambda: self.loss_scale,
            owned=self._owned,
            sides=self._sides,
            topology=topology,
        )
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
        update = self._update
        update.begin(permit, read_weights=read_weights)
        self._engine.step()
        if update.is_applied:
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
            applied=update.is_applied,
            overflowed=overflowed,
            loss_scale=self.loss_scale,
            statistics=update.statistics(),
        )

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
            flat = self._update.flat_masters[part.group]
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
