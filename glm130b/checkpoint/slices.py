"""ZeRO's flat fragments as rectangles of whole tensors: what makes a checkpoint independent of the layout.

A data-parallel rank owns a run of consecutive elements of a tensor-parallel shard. Seen in the whole tensor that is at
most three rectangles (the end of a row, full rows, the beginning of a row), each cut once more where the shard has two
pieces.
"""

from collections.abc import Iterable, Iterator

from torch import Tensor

from glm130b.checkpoint.planner import Slice
from glm130b.model.sharding import ParameterShard, parameter_shards
from glm130b.model.stage import Stage
from glm130b.parallel.topology import Topology
from glm130b.parallel.zero import Fragment, ZeroEngine


def optimizer_slices(stage: Stage, engine: ZeroEngine, topology: Topology) -> list[Slice]:
    """Everything this rank holds of the fp32 master weights and the optimizer's moments."""
    shards = {id(shard.parameter): shard for shard in parameter_shards(stage)}
    slices = []
    for fragment in engine.fragments():
        shard = shards[id(fragment.parameter)]
        is_owner = not shard.is_tied_copy and (topology.tensor.rank == 0 or not shard.is_replicated)
        for state, flat in fragment.state.items():
            slices += [
                Slice(f"{state}/{shard.name}", shard.whole_shape, offset, view, is_owner)
                for offset, view in _whole_rectangles(shard, fragment, flat)
            ]
    return slices


def _whole_rectangles(
    shard: ParameterShard, fragment: Fragment, flat: Tensor
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """(offset in the whole tensor, view) of each rectangle of one flat fragment."""
    for local_offset, view in rectangles(fragment.start, flat, tuple(shard.parameter.shape)):
        for piece in shard.pieces:
            low = max(local_offset[shard.dim], piece.local_start)
            high = min(local_offset[shard.dim] + view.shape[shard.dim], piece.local_start + piece.length)
            if low < high:
                offset = list(local_offset)
                offset[shard.dim] = piece.whole_start + low - piece.local_start
                yield tuple(offset), view.narrow(shard.dim, low - local_offset[shard.dim], high - low)


def rectangles(start: int, flat: Tensor, shape: tuple[int, ...]) -> Iterable[tuple[tuple[int, ...], Tensor]]:
    """The elements ``start ...`` of a row-major vector or matrix, held in ``flat``, as (offset, view) rectangles.

    >>> [(offset, tuple(view.shape)) for offset, view in rectangles(3, torch.zeros(12), (4, 5))]    # doctest: +SKIP
    [((0, 3), (1, 2)), ((1, 0), (2, 5))]
    """
    if len(shape) == 1:
        yield (start,), flat
        return
    columns, done = shape[1], 0
    while done < len(flat):
        row, column = divmod(start + done, columns)
        left = len(flat) - done
        if column or left < columns:
            rows, width = 1, min(columns - column, left)
        else:
            rows, width = left // columns, columns
        yield (row, column), flat[done : done + rows * width].view(rows, width)
        done += rows * width
