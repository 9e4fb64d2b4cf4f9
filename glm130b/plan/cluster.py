"""``--hardware``: the GPUs that a run is planned for, by a name, by numbers, or by a name and numbers."""

import difflib
import math
from dataclasses import dataclass, replace

from glm130b.config.errors import UserError
from glm130b.config.hardware import ACCELERATORS, Accelerator

ACHIEVED_BANDWIDTH = 0.8
"""Share of a stated bandwidth that large messages, and kernels that only read and write, reach."""

_GIB, _GIGA, _TERA = 2**30, 10**9, 10**12

_NUMBERS = {
    "memory": ("memory_bytes", _GIB),
    "peak": ("peak_half", _TERA),
    "peak_fp32": ("peak_single", _TERA),
    "memory_bandwidth": ("memory_bandwidth", _GIGA),
    "node": ("node_bandwidth", _GIGA),
    "network": ("network_bandwidth", _GIGA),
}
"""What can be written behind a name: the field of ``Accelerator``, and how many of its units one is."""

HELP = (
    f"{', '.join(ACCELERATORS)}; or custom, or one of these, with numbers behind it: "
    "memory=GiB, peak=TFLOP/s, peak_fp32=TFLOP/s, memory_bandwidth, node, network=GB/s of one GPU; "
    "for example a100-40g,network=12.5"
)


@dataclass(frozen=True)
class Cluster:
    """Machines of equal GPUs, and what they are assumed to reach."""

    accelerator: Accelerator
    gpus_per_node: int = 8
    efficiency: float = 0.65
    """Share of the peak that large matrix products reach, without reading and writing."""
    dollars_per_hour: float | None = None
    """Of one GPU; None is not known."""

    @property
    def memory_bandwidth(self) -> float:
        """Bytes/s that kernels reach."""
        return ACHIEVED_BANDWIDTH * self.accelerator.memory_bandwidth

    @property
    def network_bandwidth(self) -> float:
        """Bytes/s that one GPU reaches to another machine."""
        return ACHIEVED_BANDWIDTH * self.accelerator.network_bandwidth

    def ring_bandwidth(self, size: int, stride: int = 1) -> float:
        """Bytes/s of each GPU in a ring of ``size`` ranks that are ``stride`` apart, when all such rings run at once.

        Within a machine its links count. A ring that leaves it goes through the network cards of all its members there,
        as NCCL's several rings do, but is never faster than the links.
        """
        inside = ACHIEVED_BANDWIDTH * self.accelerator.node_bandwidth
        if size * stride <= self.gpus_per_node and self.gpus_per_node % (size * stride) == 0:
            return inside
        # Where ring and machine do not divide each other, some machine holds a part that is as small as this.
        members = math.gcd(size, max(self.gpus_per_node // stride, 1))
        return min(inside, members * self.network_bandwidth)


def read_hardware(
    text: str, *, gpus_per_node: int = 8, efficiency: float | None = None, price: float | None = None
) -> Cluster:
    """The cluster that the options describe. Raises UserError with everything that is wrong with them at once."""
    problems: list[str] = []
    accelerator = _accelerator(text, problems)
    if gpus_per_node < 1:
        problems.append(f"--gpus-per-node: {gpus_per_node} is no number of GPUs; write 1 or more")
    if efficiency is not None and not 0 < efficiency <= 1:
        problems.append(f"--efficiency: {efficiency:g} is not a share of the peak; write for example 0.6")
    if price is not None and not 0 <= price < math.inf:
        problems.append(f"--price: {price:g} is no price of a GPU hour in dollars; write for example 2.5")
    if accelerator is None or problems:
        raise UserError(problems)
    return Cluster(
        accelerator=accelerator,
        gpus_per_node=gpus_per_node,
        efficiency=accelerator.matrix_efficiency if efficiency is None else efficiency,
        dollars_per_hour=accelerator.dollars_per_hour or None if price is None else price,
    )


def _accelerator(text: str, problems: list[str]) -> Accelerator | None:
    name, *words = (word.strip() for word in text.split(","))
    numbers = {}
    for word in words:
        key, equals, value = (part.strip() for part in word.partition("="))
        if key not in _NUMBERS or not equals:
            problems.append(f"--hardware: {word!r} is not understood; write {', '.join(_NUMBERS)}=NUMBER")
        elif (number := _positive(value)) is None:
            problems.append(f"--hardware: {key} {value!r} is not a number above 0; write for example {key}=40")
        elif number * _NUMBERS[key][1] < 1:
            problems.append(
                f"--hardware: {key} {value!r} is less than one byte or operation; write for example {key}=40"
            )
        else:
            field, unit = _NUMBERS[key]
            numbers[field] = number * unit
    if "memory_bytes" in numbers:
        numbers["memory_bytes"] = int(numbers["memory_bytes"])
    sizes = [known for known in ACCELERATORS if known.startswith(f"{name}-")]
    if len(sizes) == 1:  # v100: there is no other
        name = sizes[0]
    if name in ACCELERATORS:
        return replace(ACCELERATORS[name], **numbers)  # type: ignore[arg-type]
    if name != "custom":
        near = [known for known in ACCELERATORS if known.startswith(name)] if name else []
        near = near or difflib.get_close_matches(name, ACCELERATORS, n=1)
        mend = f"write {' or '.join(near)}" if near else f"write one of {', '.join(ACCELERATORS)}, or custom"
        problems.append(f"--hardware: {name!r} is not known; {mend}")
        return None
    numbers.setdefault("peak_single", numbers.get("peak_half", 0.0) / 16)  # as of the vendors' GPUs, roughly
    missing = [key for key, (field, _) in _NUMBERS.items() if field not in numbers]
    if missing and not problems:
        problems.append(f"--hardware: custom needs {', '.join(missing)} too; write {missing[0]}=NUMBER behind it")
    if problems:
        return None
    return Accelerator(name="custom", dollars_per_hour=0.0, **numbers)  # type: ignore[arg-type]


def _positive(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None
