"""One process of a measurement: matrix products on its device, then all-reduces with the others of its machine.

`measurements.py` starts one for each GPU. It is a program of its own, so that a GPU or a link that hangs can be given
up: what is measured comes back through a file, as JSON.
"""

import json
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from glm130b.preflight.nvidia import read_gpus

_PATIENCE = timedelta(seconds=60)
_SHAPES = {"cuda": (8192, 2.0, 2**29, 20), "cpu": (768, 0.4, 2**24, 5)}
"""By device: side of the square matrices, seconds of products, bytes that are reduced, and how often."""


@dataclass(frozen=True)
class Outcome:
    """What one process measured."""

    device: str
    """``NVIDIA A100-SXM4-80GB`` or ``cpu``."""
    memory_bytes: int
    """Of the GPU; 0 on the CPU."""
    dtype: str
    flops: float
    """FLOP/s of the matrix products."""
    bus_bandwidth: float | None
    """Bytes/s that each process sends while all reduce: 2 (n - 1) / n of the data in the time taken. None alone."""
    slowed: tuple[str, ...] = ()
    """From the first process: GPUs whose hardware lowered their clock under this load, with the reason."""
    clocks: tuple[tuple[int | None, int | None], ...] = ()
    """From the first process: clock under load and highest clock of every GPU, MHz."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser()
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--answer", type=Path, required=True)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    device = torch.device("cuda", given.rank) if given.device == "cuda" else torch.device("cpu")
    store = dist.TCPStore("127.0.0.1", given.port, is_master=False, wait_for_workers=False, timeout=_PATIENCE)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=given.rank, world_size=given.world, timeout=_PATIENCE)
    outcome = measured(device, is_first=given.rank == 0)
    dist.destroy_process_group()
    given.answer.write_text(json.dumps(asdict(outcome)), encoding="utf-8")


def measured(device: torch.device, *, is_first: bool) -> Outcome:
    """Collective. All processes compute at the same time, as they do in training: they share power and cooling."""
    side, seconds, num_bytes, times = _SHAPES[device.type]
    dtype, name, memory = torch.float32, "cpu", 0
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        dtype = torch.bfloat16 if properties.major >= 8 else torch.float16  # V100 has no bf16
        name, memory = properties.name, properties.total_memory
    factor = operand(side, dtype, device)
    product = torch.empty_like(factor)

    def multiply() -> object:
        return torch.mm(factor, factor, out=product)

    _seconds_of(multiply, product, times=3)  # chooses kernels, touches memory
    count = max(1, int(seconds / _seconds_of(multiply, product, times=3)))
    dist.barrier()
    each = _seconds_of(multiply, product, times=count)
    slowed, clocks = _under_load(multiply, product, times=count, is_first=is_first)
    return Outcome(
        device=name,
        memory_bytes=memory,
        dtype=str(dtype).removeprefix("torch."),
        flops=2 * side**3 / each,
        bus_bandwidth=_bus_bandwidth(device, num_bytes=num_bytes, times=times),
        slowed=slowed,
        clocks=clocks,
    )


def operand(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Normal random numbers, [side, side]: a GPU that multiplies equal ones draws much less power than in training, and
    one that power or heat slow down there would pass."""
    return torch.randn(side, side, dtype=dtype, device=device)


def _under_load(
    multiply: Callable[[], object], product: Tensor, *, times: int, is_first: bool
) -> tuple[tuple[str, ...], tuple[tuple[int | None, int | None], ...]]:
    """``Outcome.slowed`` and ``.clocks``: the first process reads them while all GPUs work on what has been queued."""
    slowed: tuple[str, ...] = ()
    clocks: tuple[tuple[int | None, int | None], ...] = ()
    if product.device.type == "cuda":
        for _ in range(times):
            multiply()
        if is_first:
            with suppress(OSError):  # told where the GPUs are read at rest
                gpus = read_gpus()
                slowed = tuple(f"GPU {gpu.index} {reason}" for gpu in gpus for reason in gpu.slowed_by)
                clocks = tuple((gpu.clock, gpu.highest_clock) for gpu in gpus)
        _wait_for(product)
    return slowed, clocks


def _bus_bandwidth(device: torch.device, *, num_bytes: int, times: int) -> float | None:
    world = dist.get_world_size()
    if world == 1:
        return None
    data = torch.zeros(num_bytes // 4, device=device)
    _seconds_of(lambda: dist.all_reduce(data), data, times=2)  # connects
    dist.barrier()
    each = _seconds_of(lambda: dist.all_reduce(data), data, times=times)
    return 2 * (world - 1) / world * num_bytes / each


def _seconds_of(action: Callable[[], object], result: Tensor, *, times: int) -> float:
    """Mean of one of ``times`` actions that end up in ``result``."""
    _wait_for(result)
    began = time.perf_counter()
    for _ in range(times):
        action()
    _wait_for(result)
    return (time.perf_counter() - began) / times


def _wait_for(result: Tensor) -> None:
    result.view(-1)[0].item()


if __name__ == "__main__":
    main()
