"""Accelerators by name: what their vendors state, and what a cluster of them is wired with."""

import re
from dataclasses import dataclass

_TERA, _GIGA, _GIB = 10**12, 10**9, 2**30


@dataclass(frozen=True)
class Accelerator:
    """One GPU in a cluster."""

    name: str
    memory_bytes: int
    peak_half: float
    """Dense FLOP/s in fp16 and bf16, sums in fp32."""
    peak_single: float
    """FLOP/s in fp32, outside tensor cores."""
    memory_bandwidth: float
    """Bytes/s."""
    node_bandwidth: float
    """Bytes/s that one GPU sends to others of its machine, in one direction."""
    network_bandwidth: float
    """Bytes/s that one GPU sends to other machines, in one direction."""
    dollars_per_hour: float
    """A rough rent, for an estimate."""
    matrix_efficiency: float = 0.65
    """Share of the peak that large matrix products reach, reading and writing not counted; ``benchmarks/plan.md`` holds
    it against published runs."""
    is_ampere_or_later: bool = True
    """Has bf16, and flash kernels for attention."""

    def peak_flops(self, dtype: str) -> float:
        """FLOP/s for ``precision.dtype``."""
        return self.peak_single if dtype == "fp32" else self.peak_half


ACCELERATORS = {
    accelerator.name: accelerator
    for accelerator in (
        Accelerator(
            "v100-32g",
            32 * _GIB,
            125 * _TERA,
            15.7 * _TERA,
            900 * _GIGA,
            150 * _GIGA,
            6.25 * _GIGA,
            1.0,
            is_ampere_or_later=False,
        ),
        Accelerator("a100-40g", 40 * _GIB, 312 * _TERA, 19.5 * _TERA, 1555 * _GIGA, 300 * _GIGA, 25 * _GIGA, 1.3),
        Accelerator("a100-80g", 80 * _GIB, 312 * _TERA, 19.5 * _TERA, 2039 * _GIGA, 300 * _GIGA, 25 * _GIGA, 1.8),
        Accelerator("h100", 80 * _GIB, 989 * _TERA, 67 * _TERA, 3350 * _GIGA, 450 * _GIGA, 50 * _GIGA, 2.5),
        Accelerator("h200", 140 * _GIB, 989 * _TERA, 67 * _TERA, 4800 * _GIGA, 450 * _GIGA, 50 * _GIGA, 3.0),
    )
}


_OTHER_BOARDS = {"PCIE", "NVL", "FHHL", "MIG"}
"""What the names of boards, and of parts of them, that are slower than the accelerators above say of themselves."""


def recognised(device_name: str, memory_bytes: int) -> Accelerator | None:
    """The accelerator that ``torch.cuda.get_device_name`` and the size of its memory speak of; None if unknown.

    Only the boards above, all of NVIDIA's SXM kind: those in a PCIe slot have other clocks and links.

    >>> recognised("NVIDIA A100-SXM4-40GB", 42_000_000_000).name
    'a100-40g'
    """
    words = set(re.findall(r"[A-Z0-9]+", device_name.upper()))
    if words & _OTHER_BOARDS:
        return None
    models = [known for name, known in ACCELERATORS.items() if name.split("-")[0].upper() in words]
    return min(models, key=lambda known: abs(known.memory_bytes - memory_bytes), default=None)
