"""Bad documents: each is written down with its file and line, and too many of them end the run."""

import json
from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from tests.unit.data.preparation.requests import prepared, request


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Line 10, 20, .. of 200 is bad."""
    file = tmp_path / "mixed.jsonl"
    bad = [b"{", b'{"text": "\xff"}', b'{"text": " "}', b"[]"]
    lines = [bad[i // 10 % 4] if i % 10 == 9 else json.dumps({"text": f"document {i}"}).encode() for i in range(200)]
    file.write_bytes(b"\n".join(lines))
    return file


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_bad_line_is_written_with_its_place_in_the_file(
    folder: Path, mixed: Path, tmp_path: Path, num_workers: int
) -> None:
    asked = request(folder, [mixed])
    with pytest.raises(UserError) as error:
        prepared(asked, tmp_path / "out", num_workers=num_workers)
    first, *others = error.value.problems
    assert first.startswith(
        "20 of 200 documents are bad (5 broken JSON, 5 empty document, 5 invalid UTF-8, 5 no object), "
        f"and --reject-share allows 0 of them; {tmp_path / 'out.rejected.jsonl'} names them; "
    )
    assert others[0].startswith(f"{mixed}, line 10: is not JSON")
    assert len(others) == 5
    rows = [json.loads(line) for line in (tmp_path / "out.rejected.jsonl").read_text().splitlines()]
    assert [(row["file"], row["line"]) for row in rows] == [(str(mixed), line) for line in range(10, 201, 10)]
    assert [row["kind"] for row in rows[:4]] == ["broken JSON", "invalid UTF-8", "empty document", "no object"]
    assert not (tmp_path / "out").exists()


def test_a_share_of_them_may_be_left_out(folder: Path, mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        prepared(request(folder, [mixed]), tmp_path / "out", reject_share=0.099)
    assert (tmp_path / ".out.partial").exists()
    manifest = prepared(request(folder, [mixed]), tmp_path / "out", reject_share=0.1)
    assert manifest
    assert sum(split.documents for split in manifest.splits.values()) == 180
    assert sum(manifest.rejected.values()) == 20
    assert (tmp_path / "out.rejected.jsonl").exists()


def test_a_mended_file_leaves_no_list_behind(folder: Path, mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        prepared(request(folder, [mixed]), tmp_path / "out")
    mixed.write_text('{"text": "mended"}\n')
    assert prepared(request(folder, [mixed]), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed.jsonl", "out"]


def test_a_smaller_share_or_a_lost_list_is_seen_in_a_finished_corpus(folder: Path, mixed: Path, tmp_path: Path) -> None:
    asked, out = request(folder, [mixed]), tmp_path / "out"
    assert prepared(asked, out, reject_share=0.1)
    assert prepared(asked, out, reject_share=0.1) is None
    assert prepared(asked, out, reject_share=0.5) is None
    with pytest.raises(UserError, match="20 of 200 documents are bad"):
        prepared(asked, out, reject_share=0.099)
    assert out.exists()
    (tmp_path / "out.rejected.jsonl").unlink()
    assert prepared(asked, out, reject_share=0.1)
    assert (tmp_path / "out.rejected.jsonl").exists()
