"""How many micro-batches each chunk of a stage holds at once between forward and backward."""

from collections.abc import Iterator, Sequence
from functools import lru_cache


@lru_cache(maxsize=4096)
def holdings(*, stage: int, stages: int, virtual_stages: int, micro_batches: int) -> tuple[tuple[int, ...], ...]:
    """Micro-batches held by the chunks of a stage, at every moment that could be the fullest.

    1F1B (Narayanan et al. 2021, section 2.2): a stage runs as many forward passes ahead as there are stages behind it,
    then one forward and one backward in turns, so it holds ``min(micro_batches, stages - stage)``. With virtual stages
    it runs ``2 (stages - stage - 1) + (virtual_stages - 1) stages`` chunks ahead, dealt in turns of ``stages``
    micro-batches, as Megatron-core's interleaved schedule does.
    """
    if virtual_stages == 1:
        return ((min(micro_batches, stages - stage),),)
    held = [0] * virtual_stages
    moments = set()
    for chunk, change in _order(stage, stages, virtual_stages, min(micro_batches, 4 * stages)):
        held[chunk] += change
        if change > 0:
            moments.add(tuple(held))
    return tuple(moments)


def peak(moments: Sequence[Sequence[int]], chunk_bytes: Sequence[int]) -> int:
    """The most that the chunks hold together."""
    return max(sum(map(int.__mul__, held, chunk_bytes)) for held in moments)


def _order(stage: int, stages: int, virtual_stages: int, micro_batches: int) -> Iterator[tuple[int, int]]:
    """(chunk, +1 for a forward pass or -1 for a backward pass), one after the other; the turns repeat, so a few rounds
    show all."""
    total = micro_batches * virtual_stages
    ahead = min(total, 2 * (stages - stage - 1) + (virtual_stages - 1) * stages)
    for index in range(total + ahead):
        if index < total:
            yield index // stages % virtual_stages, 1
        if index >= ahead:
            yield virtual_stages - 1 - (index - ahead) // stages % virtual_stages, -1
