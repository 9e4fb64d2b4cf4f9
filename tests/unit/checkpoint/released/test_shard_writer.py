"""A file filled in any order is the file that torch.save writes."""

import errno
import os
import zipfile
from pathlib import Path

import pytest
import torch

from glm130b.checkpoint.released.shard_reader import open_shard
from glm130b.checkpoint.released.shard_writer import ShardWriter

MATRIX = torch.arange(24.0).view(6, 4)
VECTOR = torch.arange(5.0) + 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rectangles_in_any_order_make_the_tensors(tmp_path: Path, dtype: torch.dtype) -> None:
    file = tmp_path / "mp_rank_00_model_states.pt"
    writer = ShardWriter(file, {"matrix": (6, 4), "vector": (5,), "untouched": (2, 2)}, dtype)
    writer.write("vector", (3,), VECTOR[3:].to(dtype))
    writer.write("matrix", (4, 0), MATRIX[4:].to(dtype))
    writer.write("matrix", (0, 3), MATRIX[:4, 3:].to(dtype))
    writer.write("vector", (0,), VECTOR[:3].to(dtype))
    writer.write("matrix", (0, 0), MATRIX[:4, :3].to(dtype))
    writer.close()
    for memory_mapped in (False, True):
        module = torch.load(file, weights_only=True, mmap=memory_mapped)["module"]
        assert list(module) == ["matrix", "vector", "untouched"]
        assert torch.equal(module["matrix"], MATRIX.to(dtype))
        assert torch.equal(module["vector"], VECTOR.to(dtype))
        assert torch.equal(module["untouched"], torch.zeros(2, 2, dtype=dtype))


def test_the_archive_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "shard.pt"
    writer = ShardWriter(file, {"matrix": (6, 4), "vector": (5,)}, torch.float16)
    writer.write("matrix", (0, 0), MATRIX.half())
    assert open_shard(file).damages() != []
    writer.close()
    assert open_shard(file).damages() == []
    plain = tmp_path / "plain.pt"
    torch.save({"module": {"matrix": MATRIX.half(), "vector": torch.zeros(5).half()}}, plain)
    assert checksums(file) == checksums(plain)


def checksums(file: Path) -> list[int]:
    """Of the records of data, after the archive has been read with them."""
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        return [record.CRC for record in archive.infolist() if "/data/" in record.filename]


def test_a_full_disk_is_told_before_anything_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        ShardWriter(tmp_path / "shard.pt", {"matrix": (6, 4)}, torch.float16)
