"""How much memory a process has needed at most."""

from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
"""Linux: what the kernel says of a process; ``VmHWM`` is the most that was resident."""


class MemoryUse:
    """The peak of this process, read once a step.

    On a GPU it is the peak between two readings: as the reading follows the backward pass, that is the update of the
    step before, what came between the steps, forward and backward. ``reserved`` is what PyTorch's allocator has taken
    of the GPU, with what it holds in reserve; libraries such as NCCL take more on their own. On the CPU it is the
    process's peak so far, without its data workers.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        on_cpu = ("memory_resident_gib",) if _STATUS.exists() else ()
        self.names = ("memory_allocated_gib", "memory_reserved_gib") if device.type == "cuda" else on_cpu
        """Of the numbers that a reading has."""

    def read(self) -> tuple[float, ...]:
        """GiB, a number for each name."""
        return tuple(peak / 2**30 for peak in self._peaks())

    def _peaks(self) -> tuple[int, ...]:
        if self._device.type == "cuda":
            peaks = torch.cuda.max_memory_allocated(self._device), torch.cuda.max_memory_reserved(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            return peaks
        lines = _STATUS.read_text(encoding="utf-8").splitlines() if self.names else []
        return tuple(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
