"""Which files a user's words name, and in which order."""

from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.data.reading.formats import Format, find_files


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", Format("lines", None)),
        ("a.json.gz", Format("lines", "gzip")),
        ("A.NDJSON.ZST", Format("lines", "zstd")),
        ("a.b.txt", Format("text", None)),
        ("a.parquet", Format("parquet", None)),
        ("a.parquet.gz", None),
        ("a.gz", None),
        ("jsonl", None),
        ("a.csv", None),
    ],
)
def test_a_suffix_names_the_format(name: str, expected: Format | None) -> None:
    assert Format.of(Path(name)) == expected


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = ["b.jsonl", "a.txt", "z/c.parquet", "z/.hidden/d.txt", "z/.e.txt", "z/notes.md", "y/f.jsonl.gz"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_the_order_given_comes_first_and_folders_and_globs_are_sorted(tree: Path) -> None:
    words = [tree / "z", str(tree / "*.*"), str(tree / "**" / "*.gz"), tree, tree / "b.jsonl"]
    found = [str(file.relative_to(tree)) for file in find_files(words)]
    assert found == ["z/c.parquet", "a.txt", "b.jsonl", "y/f.jsonl.gz"]


def test_all_words_that_name_nothing_are_told(tree: Path) -> None:
    words = [tree / "none.txt", tree / "*.csv", tree / "z" / "notes.md", tree / "z" / ".hidden" / "d.txt"]
    with pytest.raises(UserError) as error:
        find_files(words)
    assert len(error.value.problems) == 3
    for word, problem in zip(words, error.value.problems, strict=False):
        assert problem.startswith(f"{word}: ")


def test_a_file_with_the_characters_of_a_glob_is_that_file(tmp_path: Path) -> None:
    file = tmp_path / "part[1].jsonl"
    file.touch()
    assert find_files([file]) == (file,)
