"""Which implementation computes what: chosen once per process, by the config, the model and what is installed."""

import importlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Protocol, cast

import torch
from torch import Tensor

from glm130b.config.errors import UserError
from glm130b.config.model import ModelConfig
from glm130b.config.model_rules import flash_limits
from glm130b.config.sections import KernelsConfig
from glm130b.model.attention_sdpa import attend_with_sdpa
from glm130b.model.attention_varlen import attend_with_varlen
from glm130b.model.normalization import Implementation
from glm130b.model.segments import PackedSegments
from glm130b.model.varlen_kernels import flash_attn_kernel, torch_varlen_kernel

Obstacle = Callable[[], str | None]
"""Why an implementation cannot do the job, the end of a sentence that its name begins; None if it can."""


class AttentionKernel(Protocol):
    """Attention within segments: mixed values [S, B, N * D], zeros for padding. G divides N."""

    def __call__(
        self,
        query_SBND: Tensor,
        key_SBGD: Tensor,
        value_SBGD: Tensor,
        segments: PackedSegments,
        *,
        scale: float,
        dropout: float,
        slopes_N: Tensor | None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Kernels:
    """The choice."""

    attention: AttentionKernel
    attention_name: str
    norm: Implementation
    fused_pointwise: bool

    def describe(self) -> str:
        """One line for a run's banner."""
        pointwise = "fused" if self.fused_pointwise else "plain"
        return f"attention {self.attention_name}, norms {self.norm}, pointwise {pointwise}"


def choose_kernels(config: KernelsConfig, model: ModelConfig, dtype: torch.dtype, device: torch.device) -> Kernels:
    """What the config demands, or for ``auto`` the fastest that the model allows and this machine has.

    Raises UserError for everything demanded that cannot be.
    """
    choice = _Choice()
    attention = choice.of(
        "attention",
        config.attention,
        {
            "flash_attn": lambda: (
                _no_flash_here(dtype, device)
                or next(flash_limits("flash_attn", model), None)
                or _import_fails("flash_attn", "flash_attn_2_cuda")
                or _flash_attn_is_old()
            ),
            "varlen": lambda: (
                _no_flash_here(dtype, device) or next(flash_limits("varlen", model), None) or _torch_lacks_flash()
            ),
            "sdpa": lambda: None,
        },
    )
    norm = choice.of(
        "norm",
        config.norm,
        {
            "apex": lambda: (
                _fused_norm_limits(model, device) or _import_fails("apex.normalization", "fused_layer_norm_cuda")
            ),
            "transformer_engine": lambda: (
                _fused_norm_limits(model, device) or _import_fails("transformer_engine.pytorch")
            ),
            "torch": lambda: None,
        },
    )
    # On a CPU compiling takes longer than it saves, so there it has to be asked for.
    wish = "plain" if config.pointwise == "auto" and device.type == "cpu" else config.pointwise
    pointwise = choice.of("pointwise", wish, {"fused": lambda: _compiler_is_missing(device), "plain": lambda: None})
    if choice.problems:
        raise UserError(choice.problems)
    return Kernels(
        attention=_ATTENTION[attention](),
        attention_name=attention,
        norm=cast(Implementation, norm),
        fused_pointwise=pointwise == "fused",
    )


class _Choice:
    """Collects what stands against the demands, so that the user hears of all of it at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def of(self, key: str, wish: str, obstacles: Mapping[str, Obstacle]) -> str:
        """``wish``, or for ``auto`` the first without an obstacle; the last one never has any."""
        if wish == "auto":
            return next(name for name, obstacle in obstacles.items() if obstacle() is None)
        if (why_not := obstacles[wish]()) is not None:
            self.problems.append(f"kernels.{key}: {wish} {why_not}; take auto or {list(obstacles)[-1]}")
        return wish


_ATTENTION: dict[str, Callable[[], AttentionKernel]] = {
    "flash_attn": lambda: partial(attend_with_varlen, flash_attn_kernel()),
    "varlen": lambda: partial(attend_with_varlen, torch_varlen_kernel()),
    "sdpa": lambda: attend_with_sdpa,
}


def _no_flash_here(dtype: torch.dtype, device: torch.device) -> str | None:
    """Why no flash kernel runs on this device, or in this number format."""
    if device.type != "cuda":
        return f"needs a CUDA device, this process runs on {device.type}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "needs a GPU of the Ampere generation or later"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"computes in fp16 and bf16, not in {dtype}"
    return None


def _flash_attn_is_old() -> str | None:
    """Before 2.1 a causal triangle was aligned top-left: wrong for targets after a context, silently."""
    installed: str = importlib.import_module("flash_attn").__version__
    is_old = tuple(int(part) for part in installed.split(".")[:2]) < (2, 1)
    return f"is needed from version 2.1 on, {installed} is installed" if is_old else None


def _torch_lacks_flash() -> str | None:
    if not torch.backends.cuda.is_flash_attention_available():
        return "needs a PyTorch that was built with flash attention"
    return None


def _fused_norm_limits(model: ModelConfig, device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"needs a CUDA device, this process runs on {device.type}"
    if model.normalization == "layernorm" and not model.biases:
        return "has no LayerNorm without a bias"
    return None


def _compiler_is_missing(device: torch.device) -> str | None:
    """What torch.compile needs to make kernels."""
    if device.type == "cuda":
        if not find_spec("triton"):
            return "needs the package triton, which is not installed"
        # Triton compiles what launches its kernels.
        has_compiler = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
        return None if has_compiler else "needs a C compiler, none is on the PATH"
    has_compiler = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    return None if has_compiler else "needs a C++ compiler, none is on the PATH"


def _import_fails(*modules: str) -> str | None:
    """Absent, built for another PyTorch, or another project of that name: all that counts is whether it imports."""
    if find_spec(modules[0].partition(".")[0]) is None:
        return "is not installed"
    try:
        for module in modules:
            importlib.import_module(module)
    except Exception as error:
        return f"is installed but cannot be imported ({error})"
    return None
