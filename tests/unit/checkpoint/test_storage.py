"""What stands on the disk, that nothing in it is executed or leads elsewhere, and what a failing write leaves."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glm130b.checkpoint import storage
from glm130b.checkpoint.checksums import verify
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.layout import Layout
from glm130b.checkpoint.planner import Slice, SliceSavePlanner
from glm130b.checkpoint.storage import SaveFailed, load_slices, save_slices
from glm130b.config.errors import UserError
from glm130b.durable import DurableFile

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # no job here

MATRIX = torch.arange(12, dtype=torch.float32).view(3, 4)
VECTOR = torch.arange(5, dtype=torch.float32) / 7


def save(folder: CheckpointFolder, step: int = 1, advance: Callable[[float], None] = lambda share: None) -> Path:
    """A matrix in two chunks, the first of which is not contiguous in memory, and a vector in one."""
    slices = [
        Slice("master/a", (3, 4), (0, 0), MATRIX[:, :1], True),
        Slice("master/a", (3, 4), (0, 1), MATRIX[:, 1:], True),
        Slice("exp_avg/b", (5,), (0,), VECTOR, True),
    ]
    folder.create()
    save_slices(SliceSavePlanner(slices), folder, step=step, description="{}", advance=advance)
    return folder.at(step)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(CheckpointFolder(tmp_path))


def test_every_piece_on_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of 12, 36 and 20 bytes, in pieces of 16 at most."""
    monkeypatch.setattr(storage, "_SYNC_BYTES", 16)
    told: list[str | float] = []
    sync = DurableFile.sync

    def synced(file: DurableFile) -> None:
        sync(file)
        if file.path.name.startswith("__"):
            told.append("synced")

    monkeypatch.setattr(DurableFile, "sync", synced)
    checkpoint = save(CheckpointFolder(tmp_path), advance=told.append)
    assert told == ["synced", 28 / 68, "synced", 44 / 68, "synced", 64 / 68, "synced", 1.0]
    assert verify(checkpoint) == []


def test_every_file_that_goes_is_told(tmp_path: Path) -> None:
    """Of an earlier kill's leftovers before anything is written, of what the save replaces behind it."""
    folder, told = CheckpointFolder(tmp_path), list[float]()
    save(folder)
    (folder.begin(7) / "half").touch()
    save(folder, advance=told.append)
    assert told == [0.0, 1.0, *[1.0] * 4]


def test_a_checkpoint_is_numbers_and_json(checkpoint: Path) -> None:
    """Whoever reads it needs numpy and this page."""
    names = {"__0_0.distcp", "checksums.json", "run.json", "tensors.json"}
    assert {file.name for file in checkpoint.iterdir()} == names
    tensors = json.loads((checkpoint / "tensors.json").read_text())["tensors"]
    assert {key: (value["dtype"], value["shape"]) for key, value in tensors.items()} == {
        "master/a": ("float32", [3, 4]),
        "exp_avg/b": ("float32", [5]),
    }
    data = (checkpoint / "__0_0.distcp").read_bytes()
    assert len(data) == 4 * (12 + 5)
    for key, expected in (("master/a", MATRIX.numpy()), ("exp_avg/b", VECTOR.numpy())):
        for chunk in tensors[key]["chunks"]:
            numbers = np.frombuffer(data, "<f4", count=int(np.prod(chunk["sizes"])), offset=chunk["byte"])
            place = tuple(slice(o, o + n) for o, n in zip(chunk["offset"], chunk["sizes"], strict=True))
            np.testing.assert_array_equal(numbers.reshape(chunk["sizes"]), expected[place])
    assert verify(checkpoint) == []


class Trap:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("trapped"),)


@pytest.mark.parametrize("file", ["tensors.json", "run.json", "__0_0.distcp", ".metadata"])
def test_nothing_is_unpickled(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.chdir(tmp_path)
    whole = pickle.dumps(Trap())
    (checkpoint / file).write_bytes(whole + bytes(100))
    target = torch.zeros(3, 4)
    try:
        load_slices([Slice.whole("master/a", target)], checkpoint)
    except UserError as error:
        assert file == "tensors.json", error  # noqa: PT017  (the other files load, as whatever numbers they are)
    assert not Path("trapped").exists()


def changed(checkpoint: Path, **values: Any) -> None:
    """Another ``tensors.json``: the first chunk of the matrix with other values."""
    file = checkpoint / "tensors.json"
    layout = json.loads(file.read_text())
    layout["tensors"]["master/a"]["chunks"][0].update(values)
    file.write_text(json.dumps(layout))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"file": "../__0_0.distcp"}, "String should match pattern"),
        ({"file": "/etc/passwd"}, "String should match pattern"),
        ({"file": "__0_0.distcp\n"}, "String should match pattern"),
        ({"byte": -4}, "greater than or equal to 0"),
        ({"byte": "0"}, "valid integer"),
        ({"byte": True}, "valid integer"),
        ({"sizes": [3, 2]}, "do not fill the shape"),
        ({"sizes": [3, 9]}, "leaves the shape"),
        ({"sizes": [3]}, r"a chunk of \[3\] at \[0, 0\] in shape \[3, 4\]"),
        ({"sizes": [3, 0]}, "greater than or equal to 1"),
        ({"offset": [-1, 0]}, "greater than or equal to 0"),
        ({"more": 1}, "not permitted"),
    ],
)
def test_a_layout_that_is_not_ours_is_refused(checkpoint: Path, values: dict[str, Any], told: str) -> None:
    changed(checkpoint, **values)
    target = torch.full((3, 4), torch.nan)
    with pytest.raises(UserError, match=rf"tensors\.json: does not tell where the tensors are \(.*{told}.*\); go on"):
        load_slices([Slice.whole("master/a", target)], checkpoint)
    assert target.isnan().all()


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"tensors": 1}', "\udcff", "1e999"])
def test_a_layout_that_is_no_layout_is_refused(checkpoint: Path, text: str) -> None:
    (checkpoint / "tensors.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"tensors\.json: does not tell where the tensors are"):
        Layout.read(checkpoint)


def test_a_file_that_ends_early_is_named(checkpoint: Path) -> None:
    file = checkpoint / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"__0_0\.distcp: is cut off; go on from another checkpoint"):
        load_slices([Slice.whole(key, torch.empty(s)) for key, s in {"exp_avg/b": 5}.items()], checkpoint)
    file.unlink()
    with pytest.raises(UserError, match=r"step-00000001: cannot be read \(.*No such file.*\); go on from another"):
        load_slices([Slice.whole("exp_avg/b", torch.empty(5))], checkpoint)


def test_only_the_rows_asked_for_are_read(checkpoint: Path) -> None:
    """The others may be unreadable."""
    file = checkpoint / "__0_0.distcp"
    layout = Layout.read(checkpoint)
    last = max(chunk.byte for chunk in layout.tensors["master/a"].chunks)
    file.write_bytes(file.read_bytes()[: last + 2 * 3 * 4])
    two_rows = torch.empty(2, 4)
    load_slices([Slice("master/a", (3, 4), (0, 0), two_rows, False)], checkpoint)
    assert torch.equal(two_rows, MATRIX[:2])


@pytest.mark.parametrize("fails", ["write", "close"])
def test_a_full_disk_leaves_the_one_before_and_its_own_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    folder = CheckpointFolder(tmp_path)
    before = save(folder, step=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(DurableFile, fails, full)
        with pytest.raises(SaveFailed, match=r"\[Errno 28\] No space left on device"):
            save(folder, step=2)
    assert folder.candidates() == [before]
    assert verify(before) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001"]
    assert save(folder, step=2) == folder.latest()


def test_an_interrupt_is_no_failed_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DurableFile, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(CheckpointFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []
