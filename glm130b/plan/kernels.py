"""Which kernels a plan assumes: what is kept for the backward pass, and how often memory is read, depends on them."""

from dataclasses import dataclass
from typing import Literal

from glm130b.config.errors import UserError
from glm130b.config.hardware import Accelerator
from glm130b.config.model_rules import flash_limits
from glm130b.config.sections import RunConfig


@dataclass(frozen=True)
class AssumedKernels:
    """The choice of ``model/kernels.py``, foreseen."""

    attention: Literal["varlen", "flash_attn", "sdpa"]
    fused_pointwise: bool
    on_gpu: bool

    @property
    def is_flash(self) -> bool:
        """Called with the packed tokens of all segments, where ``sdpa`` is called segment by segment."""
        return self.attention != "sdpa"

    def describe(self) -> str:
        """For the page's list of assumptions."""
        scores = "keeps no scores" if self.on_gpu else "keeps a mask of every target"
        pointwise = "fused" if self.fused_pointwise else "plain"
        return f"attention by {self.attention}, which {scores}; pointwise {pointwise}"


def gpu_kernels(config: RunConfig, accelerator: Accelerator) -> AssumedKernels:
    """What ``auto`` takes on this GPU with PyTorch and Triton as they are installed; flash-attn only where asked for,
    apex and Transformer Engine never, since their norms keep the same. Raises UserError for what this GPU cannot do."""
    wish, dtype = config.kernels.attention, config.precision.dtype
    problems = []
    if dtype == "bf16" and not accelerator.is_ampere_or_later:
        problems.append(f"precision.dtype: bf16 is not for {accelerator.name}, which came before it; write fp16")
    if wish in ("varlen", "flash_attn") and not accelerator.is_ampere_or_later:
        problems.append(f"kernels.attention: {wish} needs a GPU later than {accelerator.name}; write auto or sdpa")
    if problems:
        raise UserError(problems)
    can_flash = accelerator.is_ampere_or_later and dtype != "fp32"
    if wish == "auto":
        wish = "varlen" if can_flash and not any(flash_limits("varlen", config.model)) else "sdpa"
    return AssumedKernels(attention=wish, fused_pointwise=config.kernels.pointwise != "plain", on_gpu=True)


def cpu_kernels(config: RunConfig) -> AssumedKernels:
    """What ``auto`` takes on a CPU. Attention dropout writes the scores out there, which a plan does not count."""
    return AssumedKernels(attention="sdpa", fused_pointwise=config.kernels.pointwise == "fused", on_gpu=False)
