"""DeepSpeed's ZeRO: reduces gradients over the data axis, unscales, clips by the global norm, asks whether to go on,
steps, gathers the weights.

Every key of DeepSpeed's configuration that matters is written out here. Megatron's schedule runs forward and backward;
each ``step`` is one whole accumulation (``managed_gradient_accumulation: false``).
"""

import io
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn

from glm130b.config.sections import ParallelConfig, PrecisionConfig, RunConfig
from glm130b.model.sharding import EMBEDDING, ParameterShard, parameter_shards
from glm130b.model.stage import Stage
from glm130b.parallel.optimizer import build_optimizer
from glm130b.parallel.shared_gradients import renew_tied_copy
from glm130b.parallel.topology import Topology


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


class ZeroEngine:
    """One optimizer over a stage's parameters, its state sharded over the data axis."""

    def __init__(self, config: RunConfig, stage: Stage, topology: Topology) -> None:
        deepspeed.init_distributed(dist_backend="nccl" if topology.device.type == "cuda" else "gloo", verbose=False)
        if config.parallel.offload_optimizer and topology.device.type == "cuda":
            # The step is the CPU's then, and on the one thread that a process has it would take seconds.
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // torch.cuda.device_count()))
        optimizer = build_optimizer(config.optimizer, stage, device=topology.device, ask=self._may_update)
        # It warns of optimizers that it does not know by name, such as PyTorch's AdamW that asks first.
        logging.getLogger("DeepSpeed").addFilter(lambda record: "untested optimizer" not in record.getMessage())
        with redirect_stdout(io.StringIO()):  # its bf16 optimizer prints memory tables, whatever the log level
            self._engine, *_ = deepspeed.initialize(
                model=stage,
                optimizer=optimizer,
                config=_deepspeed_config(config),
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
        self._counted_embeddings = [
            shard.parameter for shard in parameter_shards(stage) if _is_counted(shard, topology)
        ]
        self._permit: Permit = always
        self._norms = NOT_FINITE
        self._is_permitted: bool | None = None
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

    def step(self, learning_rate: float, *, permit: Permit = always, read_weights: bool = False) -> StepOutcome:
        """Take one optimizer step with the accumulated gradients and clear them. Collective over the whole job.

        ``permit`` is called once on every rank when the gradients are reduced and nothing has changed yet, and must
        answer alike everywhere; where it answers no, weights, moments and step count stay as they are, bit for bit
        (fp16's loss scale has counted a good step by then). It is not called when the gradient is not finite, which
        never changes anything but the loss scale.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        # What remains when DeepSpeed finds an overflow, and calls no optimizer.
        self._permit, self._norms, self._is_permitted = permit, NOT_FINITE, None
        self._engine.step()
        overflowed = self._norms == NOT_FINITE
        if self._is_permitted:
            renew_tied_copy(self._stage, self._topology)
        if overflowed and self._is_offloaded:
            # It forgets to, and would add every later gradient to the one that is not finite.
            self._optimizer.averaged_gradients = dict.fromkeys(self._optimizer.averaged_gradients)
        return StepOutcome(
            gradient_norm=self._norms.whole,
            embedding_gradient_norm=self._norms.embedding,
            applied=bool(self._is_permitted),
            overflowed=overflowed,
            loss_scale=self.loss_scale,
        )

    def _may_update(self) -> bool:
        """What the optimizers ask, once for each parameter group: decided at the first, it holds for the step."""
        if self._is_permitted is None:
            self._norms = self._gradient_norms()
            self._is_permitted = self._norms != NOT_FINITE and self._permit(self._norms)
        return self._is_permitted

    def _gradient_norms(self) -> GradientNorms:
        """From the clipped gradients. Every rank takes the first one's global norm: DeepSpeed sums it within each
        replica, where the order may differ in the last bit."""
        whole = float(self._optimizer._global_grad_norm)
        flat_gradients = [group["params"][0].grad for group in self._optimizer.optimizer.param_groups]
        # DeepSpeed's bf16 optimizer looks at the norm alone; here is all that it is about to use. The other one has
        # looked at everything, and has not made the second group's flat gradient yet.
        is_bad = any(not torch.linalg.vector_norm(g, math.inf).isfinite() for g in flat_gradients if g is not None)
        square = 0.0
        for parameter in self._counted_embeddings:
            if (mapping := parameter._hp_mapping) is not None:  # type: ignore[attr-defined]
                address = mapping.hp_fragment_address
                fragment = flat_gradients[mapping.param_group_index].narrow(0, address.start, address.numel)
                square += torch.linalg.vector_norm(fragment, dtype=torch.float64).square().item()
        sums = torch.tensor(
            [whole if self._topology.rank == 0 else 0.0, square, is_bad],
            dtype=torch.float64,
            device=self._topology.device,
        )
        dist.all_reduce(sums)
        whole, square, num_bad = sums.tolist()
        if num_bad:
            return NOT_FINITE
        clipping = max(1.0, (whole + 1e-6) / self._largest_norm)  # what DeepSpeed has divided by
        return GradientNorms(whole=whole, embedding=math.sqrt(square) * clipping)

    @property
    def loss_scale(self) -> float:
        return float(self._optimizer.loss_scale) if self._is_fp16 else 1.0

    @property
    def at_minimum_scale(self) -> bool:
        """Whether fp16's loss scale can go no lower."""
        return self._is_fp16 and self.loss_scale <= self._optimizer.loss_scaler.min_scale

    def fragments(self) -> Iterator[Fragment]:
        """This rank's fp32 state, as views: writing to them and calling ``publish_master_weights`` restores a run."""
        flat_optimizer = self._optimizer.optimizer
        self._ensure_optimizer_state()
        for parameter in self._engine.module.parameters():
            if (mapping := parameter._hp_mapping) is None:
                continue
            flat = flat_optimizer.param_groups[mapping.param_group_index]["params"][0]
            tensors = {"master": flat.detach()} | {
                name: value for name, value in flat_optimizer.state[flat].items() if value.shape == flat.shape
            }
            address = mapping.hp_fragment_address
            yield Fragment(
                parameter=parameter,
                start=mapping.lp_fragment_address.start,
                state={name: tensor.narrow(0, address.start, address.numel) for name, tensor in tensors.items()},
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


def _is_counted(shard: ParameterShard, topology: Topology) -> bool:
    """Whether this rank's piece of the embedding is its part of the norm: one of several copies is."""
    is_copy = shard.is_tied_copy or (shard.is_replicated and topology.tensor.rank > 0)
    return shard.name == EMBEDDING and not is_copy


def _deepspeed_config(config: RunConfig) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": config.batch.micro_size,
        # Megatron's schedule has already divided by the number of micro-batches.
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.optimizer.clip_gradient_norm,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": config.parallel.zero_stage,
            "reduce_bucket_size": config.parallel.reduce_bucket_elements,
            "allgather_bucket_size": config.parallel.reduce_bucket_elements,
            "overlap_comm": False,
            **_offload(config.parallel),
        },
        # With the optimizer offloaded it would insist on an Adam of its own, compiled at the start of the run.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        # Under stage 2 its stopwatch would wait for the GPU in every micro-batch.
        "timers": {"throughput": {"enabled": False}},
        **_precision(config.precision),
    }


def _offload(parallel: ParallelConfig) -> dict[str, Any]:
    if not parallel.offload_optimizer:
        return {}
    return {"offload_optimizer": {"device": "cpu", "pin_memory": torch.cuda.is_available()}}


def _precision(precision: PrecisionConfig) -> dict[str, Any]:
    if precision.dtype == "fp32":
        return {}
    accumulation = "fp32" if precision.accumulate_gradients_in_fp32 else precision.dtype
    common = {"data_types": {"grad_accum_dtype": accumulation}, "communication_data_type": accumulation}
    if precision.dtype == "bf16":
        # Without the immediate update DeepSpeed's bf16 optimizer never sees gradients that its own backward did not
        # make.
        return common | {"bf16": {"enabled": True, "immediate_grad_update": True}}
    scale = precision.loss_scale
    return common | {
        "fp16": {
            "enabled": True,
            "initial_scale_power": scale.initial_power,
            "loss_scale_window": scale.window_steps,
            "hysteresis": scale.hysteresis,
            "min_loss_scale": scale.minimum,
        }
    }
