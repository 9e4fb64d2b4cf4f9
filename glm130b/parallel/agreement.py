"""How the processes of a job come to know the same: one looks and all agree, or each tells and all hear.

What stands in a shared file system may look different from every machine, and a signal reaches one process alone.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from glm130b.config.errors import UserError
from glm130b.parallel.topology import Topology

Found = TypeVar("Found")


def from_first_rank(look: Callable[[], Found], topology: Topology) -> Found:
    """What ``look`` returns on the first rank, or the UserError or OSError of it, on every rank. Collective."""
    answer: list[Found | UserError | OSError | None] = [None]
    if topology.rank == 0:
        try:
            answer = [look()]
        except (UserError, OSError) as error:
            answer = [error]
    dist.broadcast_object_list(answer, src=0)
    (found,) = answer
    if isinstance(found, (UserError, OSError)):
        raise found
    return found  # type: ignore[return-value]


def told_by_all(numbers: Sequence[float], topology: Topology) -> Tensor:
    """The ``numbers`` of every process, by rank: float64 [world, numbers] on the CPU. Every process tells as many.

    One collective over the whole job, on the job's device.
    """
    own_N = torch.tensor(numbers, dtype=torch.float64, device=topology.device)
    told_WN = own_N.new_empty(topology.world_size, len(numbers))
    dist.all_gather(list(told_WN), own_N)
    return told_WN.cpu()


def shown_by_all(thing: Found, topology: Topology) -> tuple[Found, ...]:
    """Every process's ``thing``, by rank. Collective; it pickles, so it is for the start of a run."""
    shown: list[Found | None] = [None] * topology.world_size
    dist.all_gather_object(shown, thing)
    return tuple(shown)  # type: ignore[arg-type]
