"""Rows of a file without the rest of it, and files that are not what they should be."""

import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch

from glm130b.checkpoint.released.shard_reader import open_shard
from glm130b.config.errors import UserError

MATRIX = torch.arange(24.0).view(6, 4)


def saved(path: Path, **tensors: object) -> Path:
    torch.save({"module": tensors}, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rows_come_as_they_were_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    file = saved(tmp_path / "shard.pt", first=torch.ones(3), matrix=MATRIX.to(dtype), vector=MATRIX[0].to(dtype))
    shard = open_shard(file)
    assert {key: (stored.dtype, stored.shape) for key, stored in shard.tensors.items()} == {
        "first": (torch.float32, (3,)),
        "matrix": (dtype, (6, 4)),
        "vector": (dtype, (4,)),
    }
    assert torch.equal(shard.rows("matrix", 2, 5), MATRIX[2:5].to(dtype))
    assert torch.equal(shard.rows("matrix", 0, 6), MATRIX.to(dtype))
    assert torch.equal(shard.rows("vector", 1, 3), MATRIX[0, 1:3].to(dtype))
    assert shard.damages() == []


def test_views_of_one_storage(tmp_path: Path) -> None:
    """A splitting program may save slices as they are: of columns, transposed, from the middle."""
    file = saved(tmp_path / "shard.pt", columns=MATRIX[:, 1:3], turned=MATRIX.T, middle=MATRIX[2:4], whole=MATRIX)
    shard = open_shard(file)
    assert torch.equal(shard.rows("columns", 1, 4), MATRIX[1:4, 1:3])
    assert torch.equal(shard.rows("turned", 1, 4), MATRIX.T[1:4])
    assert torch.equal(shard.rows("middle", 0, 2), MATRIX[2:4])
    assert shard.damages() == []


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(UserError) as raised:
        open_shard(path)
    return raised.value.problems


def test_a_cut_off_file(tmp_path: Path) -> None:
    file = saved(tmp_path / "shard.pt", matrix=MATRIX)
    file.write_bytes(file.read_bytes()[:-100])
    assert problems_of(file) == (f"{file}: is cut off, its end is missing; copy the file again",)


def test_a_file_of_the_old_format(tmp_path: Path) -> None:
    file = tmp_path / "shard.pt"
    torch.save({"module": {"matrix": MATRIX}}, file, _use_new_zipfile_serialization=False)
    assert problems_of(file) == (
        f"{file}: is not in the zip format of torch.save (PyTorch 1.6 and later); save it anew with it",
    )


def test_an_empty_file_and_a_missing_one(tmp_path: Path) -> None:
    file = tmp_path / "shard.pt"
    file.touch()
    assert "is not in the zip format of torch.save" in problems_of(file)[0]
    with pytest.raises(FileNotFoundError):
        open_shard(tmp_path / "none.pt")


class Code:
    """Runs when unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("ran"),))


def test_code_in_a_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = saved(tmp_path / "shard.pt", matrix=MATRIX, harm=Code())
    (problem,) = problems_of(file)
    assert problem.startswith(f"{file}: cannot be loaded as tensors alone (")
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", [{"model": {}}, [1], {"module": [MATRIX]}])
def test_another_structure(tmp_path: Path, content: object) -> None:
    file = tmp_path / "shard.pt"
    torch.save(content, file)
    assert problems_of(file) == (
        f'{file}: is not {{"module": {{name: tensor}}}}; name a checkpoint in the released layout',
    )


def test_what_is_no_tensor_is_named(tmp_path: Path) -> None:
    file = saved(tmp_path / "shard.pt", matrix=MATRIX, iteration=7)
    assert problems_of(file) == (f"{file}: iteration in it is no tensor; save it without",)


def test_a_flipped_bit_names_the_tensor(tmp_path: Path) -> None:
    file = saved(tmp_path / "shard.pt", first=torch.ones(3), matrix=MATRIX, last=torch.ones(5))
    content = bytearray(file.read_bytes())
    content[open_shard(file).tensors["matrix"].first_byte + 9] ^= 1
    file.write_bytes(content)
    assert open_shard(file).damages() == [f"{file}: matrix has not the checksum it was saved with; copy the file again"]


def test_a_damaged_name_is_damage_and_no_other_tensor(tmp_path: Path) -> None:
    file = saved(tmp_path / "shard.pt", matrix=MATRIX)
    file.write_bytes(file.read_bytes().replace(b"matrix", b"matrux"))
    assert problems_of(file)[0].startswith(f"{file}: cannot be loaded as tensors alone (Bad CRC-32")


def repacked(source: Path, target: Path, *, cut: str = "", compression: int = zipfile.ZIP_STORED) -> Path:
    """The same archive written by another program, one record shortened."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for record in old.infolist():
            data = old.read(record)
            new.writestr(record.filename, data[:-4] if record.filename.endswith(cut or "no record") else data)
    return target


def test_a_cut_off_tensor_in_a_whole_archive(tmp_path: Path) -> None:
    file = saved(tmp_path / "shard.pt", first=torch.ones(3), matrix=MATRIX, last=torch.ones(5))
    shorter = repacked(file, tmp_path / "shorter.pt", cut="data/1")
    assert open_shard(shorter).damages() == [f"{shorter}: matrix is cut off; copy the file again"]


def test_a_compressed_archive(tmp_path: Path) -> None:
    file = repacked(
        saved(tmp_path / "shard.pt", matrix=MATRIX), tmp_path / "small.pt", compression=zipfile.ZIP_DEFLATED
    )
    assert "is compressed, which torch.save never does" in problems_of(file)[0]


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "shard.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello.txt", pickle.dumps("hello"))
    assert "cannot be loaded as tensors alone" in problems_of(file)[0]


@pytest.mark.filterwarnings("ignore::UserWarning")  # zipfile's, of what a flip made of a name
@pytest.mark.parametrize("seed", range(4))
def test_no_damaged_byte_is_a_trace_or_another_weight(tmp_path: Path, seed: int) -> None:
    """A flipped bit or a new byte anywhere is told with the file's name; where nothing reads it, it changes nothing."""
    file = saved(tmp_path / "shard.pt", matrix=MATRIX, vector=MATRIX[0].half())
    whole, expected = file.read_bytes(), open_shard(file).tensors
    draws = random.Random(seed)
    for _ in range(100):
        content = bytearray(whole)
        place = draws.randrange(len(content))
        before = content[place]
        content[place] = draws.choice([before ^ 1 << draws.randrange(8), draws.randrange(256)])
        file.write_bytes(content)
        what = f"byte {place}: {before:#x} -> {content[place]:#x}"
        try:
            shard = open_shard(file)
            problems = shard.damages()
        except UserError as error:
            problems = list(error.problems)
            assert problems, what
        assert all(problem.startswith(f"{file}: ") for problem in problems), what
        if not problems:
            assert shard.tensors == expected, what
            assert torch.equal(shard.rows("matrix", 0, 6), MATRIX), what
            assert torch.equal(shard.rows("vector", 0, 4), MATRIX[0].half()), what
