"""A corpus is the same wherever it lies, and another when anything in it is."""

import json
import shutil
from pathlib import Path

import pytest

from glm130b.data.corpus import fingerprint
from glm130b.data.corpus.fingerprint import corpus_fingerprint, file_fingerprint


def edited(manifest: Path, **parts: object) -> None:
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | parts))


def test_a_corpus_may_move_and_be_prepared_again_from_moved_files(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder / "text", tmp_path / "moved")
    assert corpus_fingerprint(moved) == corpus_fingerprint(folder / "text") != corpus_fingerprint(folder / "other")
    inputs = json.loads((moved / "manifest.json").read_text())["inputs"]
    edited(moved / "manifest.json", inputs=inputs | {"files": [{"path": "/elsewhere", "bytes": 1, "mtime_ns": 2}]})
    assert corpus_fingerprint(moved) == corpus_fingerprint(folder / "text")


def test_other_contents_of_the_same_sizes_are_another_corpus(folder: Path, tmp_path: Path) -> None:
    """As their manifest tells; the contents themselves are not read."""
    other = shutil.copytree(folder / "text", tmp_path / "text")
    splits = json.loads((other / "manifest.json").read_text())["splits"]
    splits["train"]["files"]["train.bin"]["sha256"] = "0" * 64
    edited(other / "manifest.json", splits=splits)
    assert corpus_fingerprint(other) != corpus_fingerprint(folder / "text")


@pytest.mark.parametrize("edge_bytes", [1 << 20, 16])
def test_a_megatron_dataset_is_told_by_its_index(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edge_bytes: int
) -> None:
    """Whole, or by both ends when it is large; its name does not matter."""
    monkeypatch.setattr(fingerprint, "_EDGE_BYTES", edge_bytes)
    for name in ("bare", "renamed"):
        for suffix in (".idx", ".bin"):
            shutil.copy(folder / "text" / f"train{suffix}", tmp_path / f"{name}{suffix}")
    before = corpus_fingerprint(tmp_path / "bare")
    assert corpus_fingerprint(tmp_path / "renamed") == before
    index = (tmp_path / "bare.idx").read_bytes()
    for at in (0, len(index) - 1):
        (tmp_path / "bare.idx").write_bytes(index[:at] + bytes([index[at] ^ 1]) + index[at + 1 :])
        assert corpus_fingerprint(tmp_path / "bare") != before


@pytest.mark.parametrize("manifest", ["", "[]", "{}"])
def test_a_damaged_manifest_is_told(folder: Path, tmp_path: Path, manifest: str) -> None:
    damaged = shutil.copytree(folder / "text", tmp_path / "text")
    (damaged / "manifest.json").write_text(manifest)
    with pytest.raises(ValueError, match=r"manifest\.json|char 0"):
        corpus_fingerprint(damaged)


def test_a_file_is_told_by_its_contents(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    before = file_fingerprint(tmp_path / "file")
    assert before.startswith("3 bytes (")
    (tmp_path / "file").write_bytes(b"abd")
    assert file_fingerprint(tmp_path / "file") != before
