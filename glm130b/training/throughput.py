"""How fast a step was: samples, tokens and floating-point operations a second, and their share of the hardware's peak.

Model FLOP/s count what the model needs, hardware FLOP/s also what recomputation repeats; their shares of the peak are
MFU and HFU (PaLM, Chowdhery et al. 2022, appendix B). The time is that of the whole step, its update and its wait for
data included.
"""

import torch

from glm130b.config.derived import hardware_flops_per_sample, model_flops_per_sample, tokens_per_step
from glm130b.config.hardware import recognised
from glm130b.config.sections import RunConfig


class Throughput:
    """The speed of steps of a run on ``world_size`` accelerators, each of a peak in FLOP/s, if one is known."""

    def __init__(self, config: RunConfig, *, world_size: int, peak_flops: float | None) -> None:
        self._config, self._world_size, self._peak_flops = config, world_size, peak_flops
        self._model_flops = model_flops_per_sample(config)
        self._hardware_flops = hardware_flops_per_sample(config)

    def values(self, *, batch_size: int, seconds: float) -> dict[str, float]:
        """The numbers of a record, for a step of ``batch_size`` rows; without a known peak no shares of it."""
        rows_per_accelerator = batch_size / seconds / self._world_size
        model, hardware = self._model_flops * rows_per_accelerator, self._hardware_flops * rows_per_accelerator
        peak = self._peak_flops
        return {
            "seconds": seconds,
            "samples_per_second": batch_size / seconds,
            "tokens_per_second": tokens_per_step(self._config, batch_size) / seconds,
            "teraflops_per_gpu": model / 1e12,
        } | ({"mfu": model / peak, "hfu": hardware / peak} if peak else {})


def peak_flops(config: RunConfig, device: torch.device) -> float | None:
    """Peak FLOP/s of one accelerator in the run's number format: what the config says, else that of a known GPU."""
    if config.logging.peak_teraflops:
        return config.logging.peak_teraflops * 1e12
    if device.type != "cuda":
        return None
    memory_bytes = torch.cuda.get_device_properties(device).total_memory
    accelerator = recognised(torch.cuda.get_device_name(device), memory_bytes)
    return accelerator.peak_flops(config.precision.dtype) if accelerator else None
