"""Every damage is told by the name of its file; a file that cannot be read here and now is none."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from glm130b.checkpoint import checksums
from glm130b.checkpoint.checksums import verify
from glm130b.checkpoint.folder import CheckpointFolder
from tests.unit.checkpoint.files import write_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = CheckpointFolder(tmp_path)
    return write_checkpoint(folder, 10, "sixteen bytes are")


def test_a_good_one_has_no_damage(checkpoint: Path) -> None:
    assert verify(checkpoint) == []
    assert json.loads((checkpoint / "checksums.json").read_text()).keys() == {
        "__0_0.distcp",
        "run.json",
        "tensors.json",
    }


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def make_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_off, "has 16 bytes, and had 17 when it was written"),
        (flip_a_bit, "is not what was written: its SHA-256 differs"),
        (Path.unlink, "is missing"),
    ],
)
def test_a_damaged_shard_is_named(checkpoint: Path, damage: Callable[[Path], None], told: str) -> None:
    shard = checkpoint / "__0_0.distcp"
    damage(shard)
    assert verify(checkpoint) == [f"{shard}: {told}"]


def test_every_damaged_file_is_told(checkpoint: Path) -> None:
    flip_a_bit(checkpoint / "run.json")
    make_a_folder(checkpoint / "__0_0.distcp")
    first, second = verify(checkpoint)
    assert first.startswith(f"{checkpoint / '__0_0.distcp'}: has ")
    assert second == f"{checkpoint / 'run.json'}: is not what was written: its SHA-256 differs"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is no list of files"),
        ("{", "it is no list of files"),
        ("[" * 100_000, "it is no list of files"),
        ('{"run.json": 1}', "it is no list of files"),
        ("{}", "it leaves out run.json"),
        ('{"../../passwd": {"bytes": 1, "sha256": ""}}', "it names '../../passwd', which is no file of a checkpoint"),
        ('{"a\\u0000b": {"bytes": 1, "sha256": ""}}', "it names 'a\\x00b', which is no file of a checkpoint"),
    ],
)
def test_damaged_checksums(checkpoint: Path, text: str, told: str) -> None:
    (checkpoint / "checksums.json").write_text(text)
    assert verify(checkpoint) == [f"{checkpoint / 'checksums.json'}: is not what was written: {told}"]
    (checkpoint / "checksums.json").unlink()
    assert verify(checkpoint) == [f"{checkpoint / 'checksums.json'}: is missing"]


def test_the_parts_of_all_ranks_are_all_files(checkpoint: Path) -> None:
    for file in ("__0_0.distcp", "run.json", "tensors.json"):
        (checkpoint / file).unlink()
    parts = [verify(checkpoint, slice(rank, None, 4)) for rank in range(4)]
    assert [len(part) for part in parts] == [1, 1, 1, 0]
    assert [problem for part in parts for problem in part] == verify(checkpoint)


def test_a_next_try_reads_no_good_file_again(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged one it does: trouble of the file system may have looked like damage."""
    read: list[str] = []
    sha256 = checksums._sha256
    monkeypatch.setattr(checksums, "_sha256", lambda file: (read.append(file.name), sha256(file))[1])
    flip_a_bit(checkpoint / "run.json")
    good: set[Path] = set()
    assert verify(checkpoint, good=good) == verify(checkpoint, good=good) != []
    assert read == ["__0_0.distcp", "run.json", "tensors.json", "run.json"]
    assert good == {checkpoint / "__0_0.distcp", checkpoint / "tensors.json"}


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("name", ["checksums.json", "__0_0.distcp"])
def test_what_cannot_be_read_is_no_damage(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    """It is named, although the error of a read names no file."""

    def failing(function: Callable[[Path], object]) -> Callable[[Path], object]:
        def read(file: Path) -> object:
            if file.name == name:
                raise OSError(code, "no")
            return function(file)

        return read

    monkeypatch.setattr(Path, "read_bytes", failing(Path.read_bytes))
    monkeypatch.setattr(checksums, "_sha256", failing(checksums._sha256))
    with pytest.raises(OSError, match="no") as caught:
        verify(checkpoint)
    assert (caught.value.errno, caught.value.filename) == (code, str(checkpoint / name))
