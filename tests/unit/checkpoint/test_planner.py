"""Slices through torch.distributed.checkpoint: written in one tiling, read in another."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)

from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.planner import Slice, SliceSavePlanner, check_slices
from glm130b.checkpoint.storage import SaveFailed, load_slices, save_slices
from glm130b.config.errors import UserError
from glm130b.environment import Launch
from tests.harness.pool import run_distributed

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # the planners need no job

ROWS, COLUMNS = 6, 10
Tiles = list[tuple[slice, slice]]

WHOLE: Tiles = [(slice(0, ROWS), slice(0, COLUMNS))]
BY_ROWS: Tiles = [(slice(0, 1), slice(0, 10)), (slice(1, 5), slice(0, 10)), (slice(5, 6), slice(0, 10))]
BY_COLUMNS: Tiles = [(slice(0, 6), slice(0, 3)), (slice(0, 6), slice(3, 10))]
UNEVEN: Tiles = [
    *((slice(0, 1), slice(0, 4)), (slice(0, 1), slice(4, 10))),
    *((slice(1, 4), slice(0, 5)), (slice(1, 4), slice(5, 10))),
    *((slice(4, 6), slice(0, 9)), (slice(4, 6), slice(9, 10))),
]


def slices_of(key: str, memory: Tensor, tiles: Tiles, *, is_owner: bool = True) -> list[Slice]:
    """Views of a matrix; a tile that is not of full rows is not contiguous."""
    return [
        Slice(key, (ROWS, COLUMNS), (rows.start, columns.start), memory[rows, columns], is_owner)
        for rows, columns in tiles
    ]


def save(slices: list[Slice], folder: Path) -> None:
    CheckpointFolder(folder).create()
    save_slices(SliceSavePlanner(slices), CheckpointFolder(folder), step=1, description="{}")


def load(slices: list[Slice], folder: Path) -> None:
    load_slices(slices, folder / "step-00000001")


def numbers(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("written", [WHOLE, BY_ROWS, BY_COLUMNS, UNEVEN])
@pytest.mark.parametrize("read", [WHOLE, BY_ROWS, BY_COLUMNS, UNEVEN])
def test_any_tiling_reads_what_another_wrote(tmp_path: Path, written: Tiles, read: Tiles) -> None:
    source, target = numbers(ROWS, COLUMNS), torch.zeros(ROWS, COLUMNS)
    save(slices_of("master/a", source, written), tmp_path)
    load(slices_of("master/a", target, read), tmp_path)
    assert torch.equal(target, source)


def test_several_states_and_vectors_do_not_mix(tmp_path: Path) -> None:
    keys = ("master/a", "exp_avg/a", "master/b")
    sources = [numbers(ROWS, COLUMNS) + index for index in range(3)]
    vector = numbers(7)
    saved = [piece for key, source in zip(keys, sources, strict=True) for piece in slices_of(key, source, UNEVEN)]
    save(
        [
            *saved,
            Slice("master/bias", (7,), (0,), vector[:3], True),
            Slice("master/bias", (7,), (3,), vector[3:], True),
        ],
        tmp_path,
    )
    targets = [torch.zeros(ROWS, COLUMNS) for _ in keys]
    bias = torch.zeros(5)
    load(
        [
            *(piece for key, target in zip(keys, targets, strict=True) for piece in slices_of(key, target, BY_COLUMNS)),
            Slice("master/bias", (7,), (1,), bias, False),
        ],
        tmp_path,
    )
    assert all(torch.equal(target, source) for target, source in zip(targets, sources, strict=True))
    assert torch.equal(bias, vector[1:6])


def test_only_owners_write_and_every_holder_reads(tmp_path: Path) -> None:
    source = numbers(ROWS, COLUMNS)
    copy = torch.full((ROWS, COLUMNS), torch.nan)
    save([*slices_of("master/a", copy, BY_ROWS, is_owner=False), *slices_of("master/a", source, UNEVEN)], tmp_path)
    load(slices_of("master/a", copy, BY_ROWS, is_owner=False), tmp_path)
    assert torch.equal(copy, source)


def test_memory_beside_a_slice_is_left_alone(tmp_path: Path) -> None:
    save(slices_of("master/a", numbers(ROWS, COLUMNS), WHOLE), tmp_path)
    memory = torch.full((ROWS, COLUMNS), -1.0)
    load(slices_of("master/a", memory, [(slice(2, 4), slice(3, 8))]), tmp_path)
    assert torch.equal(memory[2:4, 3:8], numbers(ROWS, COLUMNS)[2:4, 3:8])
    assert (memory == -1.0).sum() == ROWS * COLUMNS - 10


def test_an_element_with_two_owners_is_not_saved(tmp_path: Path) -> None:
    overlapping = [*BY_COLUMNS, (slice(2, 4), slice(2, 4))]
    with pytest.raises(SaveFailed, match="overlapping chunks"):
        save(slices_of("master/a", numbers(ROWS, COLUMNS), overlapping), tmp_path)
    assert list(tmp_path.iterdir()) == []


def save_rows(launch: Launch, folder: Path, num_rows: int) -> None:
    """Each rank owns half of the columns of the first ``num_rows`` rows."""
    dist.init_process_group("gloo")
    half = COLUMNS // 2
    columns = slice(launch.rank * half, (launch.rank + 1) * half)
    slices = slices_of("master/a", numbers(ROWS, COLUMNS), [(slice(0, num_rows), columns)])
    planner = SliceSavePlanner(slices)
    save_slices(planner, CheckpointFolder(folder), step=1, description="{}", group=dist.group.WORLD)
    dist.destroy_process_group()


def test_elements_without_an_owner_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(SaveFailed, match="invalid fill"):
        run_distributed(save_rows, 2, tmp_path, ROWS - 1)
    assert list(tmp_path.iterdir()) == []
    run_distributed(save_rows, 2, tmp_path, ROWS)
    target = torch.zeros(ROWS, COLUMNS)
    load(slices_of("master/a", target, WHOLE), tmp_path)
    assert torch.equal(target, numbers(ROWS, COLUMNS))


def metadata(**shapes: tuple[int, ...]) -> Metadata:
    """Of a checkpoint that holds ``master/<name>`` tensors."""
    return Metadata(
        {
            f"master/{name}": TensorStorageMetadata(TensorProperties(torch.float32), torch.Size(shape), [])
            for name, shape in shapes.items()
        }
    )


def wanted(**shapes: tuple[int, ...]) -> list[Slice]:
    return [
        Slice(f"master/{name}", shape, (0,) * len(shape), torch.empty(shape), True) for name, shape in shapes.items()
    ]


def test_weights_are_told_from_moments() -> None:
    (weight,) = slices_of("master/exp_avg", numbers(ROWS, COLUMNS), WHOLE)
    (moment,) = slices_of("exp_avg/master", numbers(ROWS, COLUMNS), WHOLE)
    assert (weight.is_weight, moment.is_weight) == (True, False)


def test_a_checkpoint_that_fits_is_accepted() -> None:
    check_slices(wanted(a=(6, 10), b=(7,)), metadata(a=(6, 10), b=(7,), unused=(3,)))


def test_what_is_missing_and_what_is_misshapen_is_told_at_once() -> None:
    with pytest.raises(UserError) as raised:
        check_slices(wanted(a=(6, 10), b=(7,), c=(1,), d=(2,), e=(5,)), metadata(a=(6, 12), b=(8,), e=(5,)))
    missing, misshapen = raised.value.problems
    assert missing == (
        "checkpoint: master/c (and 1 more tensors) missing; "
        "resume with the model and optimizer sections it was saved with"
    )
    assert misshapen == (
        "checkpoint: master/a has shape [6, 12] and the config asks for [6, 10] (and 1 more tensors); "
        "resume with the model section it was saved with"
    )


def test_a_tensor_in_many_slices_is_one_problem() -> None:
    with pytest.raises(UserError, match=r"^checkpoint: master/a missing; resume with"):
        check_slices(slices_of("master/a", numbers(ROWS, COLUMNS), UNEVEN), metadata(b=(7,)))


def test_what_is_no_tensor_is_missing() -> None:
    with pytest.raises(UserError, match=r"^checkpoint: master/a missing; "):
        check_slices(wanted(a=(6, 10)), Metadata({"master/a": BytesStorageMetadata()}))
