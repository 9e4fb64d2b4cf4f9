"""A copy that later steps do not reach."""

import torch

from glm130b.checkpoint.planner import Slice
from glm130b.checkpoint.snapshot import HostCopy


def slices(memory: torch.Tensor) -> list[Slice]:
    """A block that is not contiguous, and the rest of its rows."""
    return [
        Slice("master/a", (4, 6), (0, 0), memory[:, :2], True),
        Slice("master/a", (4, 6), (0, 2), memory[:, 2:], True),
    ]


def test_a_copy_holds_what_was_when_it_was_taken() -> None:
    memory = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    before = memory.clone()
    copies = HostCopy().take(slices(memory))
    memory.fill_(-1.0)
    assert torch.equal(torch.cat([piece.view for piece in copies], dim=1), before)
    assert [(p.key, p.offset, p.whole_shape, p.is_owner) for p in copies] == [
        (p.key, p.offset, p.whole_shape, p.is_owner) for p in slices(memory)
    ]


def test_the_next_copy_takes_the_same_memory() -> None:
    memory, copy = torch.zeros(4, 6), HostCopy()
    first = copy.take(slices(memory))
    memory.fill_(2.0)
    second = copy.take(slices(memory))
    assert [piece.view.data_ptr() for piece in second] == [piece.view.data_ptr() for piece in first]
    assert all((piece.view == 2.0).all() for piece in second)
