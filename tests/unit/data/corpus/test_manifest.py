"""The manifest: whole or absent, and read only when it is one."""

import json
from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.data.corpus import manifest as module
from glm130b.data.corpus.manifest import Manifest
from tests.unit.data.corpus.prepared import inputs, texts, write_corpus


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "c", texts([1, 9], [9]), texts([3, 9]))
    manifest = Manifest.read(folder)
    assert manifest.inputs == inputs()
    assert (manifest.splits["train"].documents, manifest.splits["train"].tokens) == (2, 3)
    assert manifest.sources[0].documents == 3
    more = manifest.model_copy(update={"rejected": {"empty": 2}, "duplicates": 3, "capped": 4})
    more.write(folder)
    assert Manifest.read(folder) == more
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        [
            "manifest.json",
            *(f"{split}.{kind}" for split in ("train", "validation") for kind in ("bin", "idx", "origins")),
        ]
    )


def test_files_that_are_missing_or_of_another_size_are_found(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "c", texts([1, 9]))
    assert Manifest.read(folder).damaged_files(folder) == []
    (folder / "train.bin").write_bytes(b"")
    (folder / "validation.origins").unlink()
    assert Manifest.read(folder).damaged_files(folder) == ["train.bin", "validation.origins"]


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_corpus(tmp_path / "c", texts([1, 9]))
    old = Manifest.read(folder)

    def fails(path: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("glm130b.durable.os.fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        old.model_copy(update={"duplicates": 1}).write(folder)
    assert Manifest.read(folder) == old


@pytest.mark.parametrize("damage", ["truncated", "empty", "other version", "a split less", "unknown key", "old"])
def test_a_damaged_one_says_so(tmp_path: Path, damage: str) -> None:
    folder = write_corpus(tmp_path / "c", texts([1, 9]))
    file = folder / module.NAME
    written = json.loads(file.read_text())
    text = {
        "truncated": file.read_text()[:-9],
        "empty": "",
        "other version": json.dumps(written | {"format_version": 2}),
        "a split less": json.dumps(written | {"splits": {"train": written["splits"]["train"]}}),
        "unknown key": json.dumps(written | {"comment": ""}),
        "old": '{"inputs": {}, "splits": {}}',
    }[damage]
    file.write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json: is damaged or of another version; make "):
        Manifest.read(folder)


def test_inputs_are_equal_only_if_all_of_them_are() -> None:
    assert inputs() == inputs()
    assert inputs() != inputs(vocab_size=101)
    changed = inputs().files[0].model_copy(update={"mtime_ns": 3})
    assert inputs() != inputs().model_copy(update={"files": (changed,)})
    assert inputs() != inputs().model_copy(update={"options": {"validation_share": 0.4}})
