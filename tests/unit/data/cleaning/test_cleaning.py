"""What stays, what goes and why, through datatrove itself."""

import fcntl
import gzip
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glm130b.config.errors import UserError
from glm130b.data.cleaning.cleaning import clean
from glm130b.data.cleaning.request import Cleaning
from tests.unit.data.cleaning.conftest import BAD, REASONS, edited, good

pytest.importorskip("datatrove", reason="needs the packages of glm130b[clean]")

Make = Callable[..., Cleaning]


def rows(folder: Path) -> list[dict[str, Any]]:
    """All documents in a folder, in the order of its files."""
    return [json.loads(line) for file in sorted(folder.iterdir()) for line in file.read_text("utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_each_filter_drops_with_its_reason_and_the_rest_keeps_file_and_line(cleaning: Make, tmp_path: Path) -> None:
    texts = [text for number, bad in enumerate(BAD.values()) for text in (good(number), bad)]
    asked = cleaning(texts, texts[::-1], filters=tuple(BAD), keep_dropped=True, task_bytes=1500)
    assert len(asked.tasks()) > 4
    output = tmp_path / "out"
    report = clean(asked, output, workers=2)

    places = [
        (f"{file}:{line + 1}", text)
        for file, part in zip(asked.files, (texts, texts[::-1]), strict=True)
        for line, text in enumerate(part)
    ]
    kept = [(row["origin"], row["text"]) for row in rows(output)]
    assert kept == [place for place in places if place[1] not in BAD.values()]
    dropped = [(row["origin"], row["text"]) for row in rows(tmp_path / "out.dropped")]
    assert dropped == [place for place in places if place[1] in BAD.values()]
    assert [(row["dropped_by"], row["reason"]) for row in rows(tmp_path / "out.dropped")[:4]] == list(REASONS.items())

    assert report["dropped"] == {name: {reason: 2} for name, reason in REASONS.items()}
    assert (report["read"], report["kept"], report["rejected"]) == (16, 8, {})
    assert json.loads((tmp_path / "out.report.json").read_text()) == report
    assert not (tmp_path / ".out.cleaning").exists()


def test_the_first_of_near_duplicates_stays_whatever_the_workers(cleaning: Make, tmp_path: Path) -> None:
    texts = [good(number) for number in range(6)]
    # The third has most copies; datatrove alone would keep one of them that many were merged into.
    files = [edited(texts[2]), texts[0], texts[1]], [texts[2], edited(texts[0]), *texts[3:]], [texts[2], texts[4]] * 2
    asked = cleaning(*files, near_duplicates=True, keep_dropped=True, task_bytes=1000)
    assert len(asked.tasks()) > 6
    for workers in (1, 3):
        output = tmp_path / f"by {workers}" / "out"
        report = clean(asked, output, workers=workers)
        first, second = asked.files[0], asked.files[1]
        origins = [f"{first}:{line}" for line in (1, 2, 3)] + [f"{second}:{line}" for line in (3, 4, 5)]
        assert [row["origin"] for row in rows(output)] == origins
        assert report["near_duplicates_dropped"] == 6
    assert contents(tmp_path / "by 1") == contents(tmp_path / "by 3")


def test_chinese_has_its_own_words_and_thresholds(cleaning: Make, tmp_path: Path) -> None:
    text = "".join(
        f"在第{number}天的早晨，老师和学生们一起去了城外的山上，他们在那里看到了很多美丽的花。"
        for number in "一二三四五六七八"
    )
    text += "中午的时候下了一场小雨，大家就在亭子里休息，由一位老人给他们讲了这座山的历史。"
    text += "傍晚他们才回到学校，每个人都觉得很高兴。"
    other = "银行今年公布的报告说，国内的消费比去年增长，但是出口有所下降。" + text[::-1] + "。"
    names = ("gopher-quality", "fineweb")
    asked = cleaning(
        [text, text.replace("老人", "农民"), other, "太短了。"], filters=names, language="zh", near_duplicates=True
    )
    report = clean(asked, tmp_path / "out", workers=1)
    assert [row["text"] for row in rows(tmp_path / "out")] == [text, other]
    assert report["dropped"] == {"gopher-quality": {"gopher_short_doc": 1}, "fineweb": {}}


def test_records_that_cannot_be_read_are_refused_by_file_and_line(cleaning: Make, tmp_path: Path) -> None:
    texts: list[str | bytes] = [good(number) for number in range(8)]
    texts[5] = b'{"text": broken'
    texts[6] = b'{"content": "elsewhere"}'
    asked = cleaning(texts, filters=("gopher-quality",), keep_dropped=True, task_bytes=1000)
    output = tmp_path / "out"
    with pytest.raises(UserError) as caught:
        clean(asked, output, workers=1)
    (file,) = asked.files
    first, second, mend = caught.value.problems
    assert first.startswith(f"{file}, line 6: is not JSON")
    assert second.startswith(f"{file}, line 7: has no text")
    assert mend.startswith("2 of 8 records")
    assert not output.exists()

    report = clean(asked, output, workers=1, reject_share=0.25)
    assert (report["kept"], report["rejected"]) == (6, {"broken JSON": 1, "missing field": 1})
    assert [row["origin"] for row in rows(tmp_path / "out.dropped")] == [f"{file}:6", f"{file}:7"]


def test_finished_tasks_are_not_done_again_unless_something_else_is_asked_for(cleaning: Make, tmp_path: Path) -> None:
    asked = cleaning([good(0), good(1)], [b"broken"], filters=("gopher-quality",), task_bytes=600)
    with pytest.raises(UserError):
        clean(asked, tmp_path / "out", workers=1)
    first = tmp_path / ".out.cleaning" / "rows" / "00000.jsonl"
    first.write_text(first.read_text().replace("school", "SCHOOL"))
    shutil.copytree(tmp_path / ".out.cleaning", tmp_path / ".other.cleaning")
    clean(asked, tmp_path / "out", workers=1, reject_share=1)
    assert "SCHOOL" in rows(tmp_path / "out")[0]["text"]
    clean(replace(asked, filters=("fineweb",)), tmp_path / "other", workers=1, reject_share=1)
    assert "SCHOOL" not in rows(tmp_path / "other")[0]["text"]


def test_a_damaged_file_is_never_allowed(cleaning: Make, tmp_path: Path) -> None:
    asked = cleaning([good(0)], filters=("gopher-quality",))
    damaged = tmp_path / "cut.jsonl.gz"
    damaged.write_bytes(gzip.compress(asked.files[0].read_bytes() * 50)[:-20])
    with pytest.raises(UserError, match=rf"{damaged}, line \d+: is damaged or incomplete"):
        clean(replace(asked, files=(*asked.files, damaged)), tmp_path / "out", workers=1, reject_share=1)


def test_what_is_there_stays(cleaning: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(UserError, match="is there already"):
        clean(cleaning([good(0)], filters=("c4",)), tmp_path / "out", workers=1)


def test_two_runs_do_not_share_a_folder(cleaning: Make, tmp_path: Path) -> None:
    work = tmp_path / ".out.cleaning"
    work.mkdir()
    descriptor = os.open(work, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another run"):
        clean(cleaning([good(0)], filters=("c4",)), tmp_path / "out", workers=1)
    os.close(descriptor)


def test_files_without_documents_are_named(cleaning: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"0\.jsonl: no document in it"):
        clean(cleaning([], filters=("c4",)), tmp_path / "out", workers=1)
