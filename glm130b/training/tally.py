"""What the processes of a job add up after their work, in one collective: sums over all, and the numbers of each."""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from glm130b.parallel.topology import Topology


def add_up(
    sums: Sequence[float], own: Sequence[float], topology: Topology
) -> tuple[list[float], list[tuple[float, ...]]]:
    """``sums`` added over all processes, and the ``own`` numbers of each process, by rank.

    One all-reduce in fp64 over the whole job, on the job's device, and one wait for it: every rank adds zeros in the
    slots of the others. Every process tells as many numbers.
    """
    begin, size = len(sums) + topology.rank * len(own), len(own)
    numbers = torch.zeros(len(sums) + topology.world_size * size, dtype=torch.float64)
    numbers[: len(sums)] = torch.tensor(sums, dtype=torch.float64)
    numbers[begin : begin + size] = torch.tensor(own, dtype=torch.float64)
    numbers = numbers.to(topology.device)
    dist.all_reduce(numbers)
    told = numbers.tolist()
    slots = range(len(sums), len(told), size) if size else ()
    return told[: len(sums)], [tuple(told[slot : slot + size]) for slot in slots]


def means(names: Sequence[str], sums: Sequence[float]) -> dict[str, float]:
    """``sums`` holds a sum and a count for each name: the means, without the names that nobody counted."""
    pairs = zip(names, sums[::2], sums[1::2], strict=True)
    return {name: total / count for name, total, count in pairs if count}
