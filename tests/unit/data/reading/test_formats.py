"""Which files a user's words name, and in which order."""

import os
from pathlib import Path
from typing import Any

import pytest

from glm130b.config.errors import UserError
from glm130b.data.reading.formats import Format, files_left_out, find_files


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


def test_links_are_followed_even_in_a_ring_and_no_file_is_found_twice(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.txt").touch()
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "b.txt").touch()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "in" / "deep" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "store" / "also.txt").symlink_to(tmp_path / "in" / "b.txt")
    words = [tmp_path / "in", tmp_path / "store", tmp_path / "in" / ".." / "store" / "a.txt"]
    assert find_files(words) == (tmp_path / "in" / "b.txt", tmp_path / "in" / "linked" / "a.txt")


def test_one_file_in_two_spellings_is_one(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert find_files(["a.txt", tree / "a.txt", "z/../a.txt"]) == (Path("a.txt"),)


def test_a_folder_that_cannot_be_read_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuses(folder: Any) -> Any:
        if Path(folder).name == "y":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(UserError) as error:
        find_files([tree])
    (problem,) = error.value.problems
    assert problem.startswith(f"{tree / 'y'}: cannot be read (Permission denied); ")


def test_files_of_unknown_suffix_are_passed_by_but_known(tree: Path) -> None:
    assert files_left_out([tree, tree / "a.txt", "*.none"]) == (tree / "z" / "notes.md",)
