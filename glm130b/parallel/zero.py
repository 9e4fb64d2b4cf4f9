"""DeepSpeed's ZeRO: reduces gradients over the data axis, unscales, clips by the global norm, steps, gathers the
weights.

Every key of DeepSpeed's configuration that matters is written out here. Megatron's schedule runs forward and backward;
each ``step`` is one whole accumulation (``managed_gradient_accumulation: false``).
"""

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn

from glm130b.config.sections import OptimizerConfig, ParallelConfig, PrecisionConfig, RunConfig
from glm130b.parallel.topology import Topology


@dataclass(frozen=True)
class StepOutcome:
    """What one optimizer step did."""

    gradient_norm: float
    """Global L2 norm over all parameters, unscaled, before clipping; inf when the step overflowed."""
    applied: bool
    """False when an overflow skipped the update."""
    loss_scale: float
    """Scale of the next step; 1.0 outside fp16."""


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

    def __init__(self, config: RunConfig, model: nn.Module, topology: Topology) -> None:
        deepspeed.init_distributed(dist_backend="nccl" if topology.device.type == "cuda" else "gloo", verbose=False)
        if config.parallel.offload_optimizer and topology.device.type == "cuda":
            # The step is the CPU's then, and on the one thread that a process has it would take seconds.
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // torch.cuda.device_count()))
        optimizer = _optimizer(config.optimizer, model, topology.device)
        with redirect_stdout(io.StringIO()):  # its bf16 optimizer prints memory tables, whatever the log level
            self._engine, *_ = deepspeed.initialize(
                model=model,
                optimizer=optimizer,
                config=_deepspeed_config(config),
                mpu=_ModelParallelUnit(topology),
                dist_init_required=False,
            )
        self._optimizer = self._engine.optimizer
        self._is_fp16 = config.precision.dtype == "fp16"
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

    def step(self, learning_rate: float) -> StepOutcome:
        """Take one optimizer step with the accumulated gradients and clear them. Collective over the whole job."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        return StepOutcome(
            gradient_norm=float(self._engine.get_global_grad_norm()),
            applied=self._engine.was_step_applied(),
            loss_scale=self.loss_scale,
        )

    @property
    def loss_scale(self) -> float:
        return float(self._optimizer.loss_scale) if self._is_fp16 else 1.0

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
            "loss_scaler": {k: v for k, v in scaler.items() if _is_plain(v)},
        }

    def restore_counters(self, counters: dict[str, Any]) -> None:
        self._ensure_optimizer_state()
        for state in self._optimizer.optimizer.state.values():
            if "step" in state:
                state["step"].fill_(counters["optimizer_step"])
        if self._is_fp16:
            vars(self._optimizer.loss_scaler).update(counters["loss_scaler"])

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


def _optimizer(config: OptimizerConfig, model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """AdamW or SGD over two groups, decayed matrices and undecayed vectors; every stage has both, as ZeRO's norm
    needs."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    learning_rate = config.learning_rate.peak  # a placeholder: `step` sets the scheduled one
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate)
    return torch.optim.AdamW(
        groups, lr=learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=device.type == "cuda"
    )


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


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))
