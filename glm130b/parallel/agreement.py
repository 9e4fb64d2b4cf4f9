"""One process looks, all agree: what stands in a shared file system may look different from every machine."""

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from glm130b.config.errors import UserError
from glm130b.parallel.topology import Topology

Found = TypeVar("Found")


def from_first_rank(look: Callable[[], Found], topology: Topology) -> Found:
    """What ``look`` returns on the first rank, or the UserError it raises there, on every rank. Collective."""
    answer: list[Found | UserError | None] = [None]
    if topology.rank == 0:
        try:
            answer = [look()]
        except UserError as error:
            answer = [error]
    dist.broadcast_object_list(answer, src=0)
    (found,) = answer
    if isinstance(found, UserError):
        raise found
    return found  # type: ignore[return-value]
