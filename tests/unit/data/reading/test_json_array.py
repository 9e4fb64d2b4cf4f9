"""A file that is one JSON array, as Alpaca's is."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from glm130b.data.reading import json_array
from glm130b.data.reading.json_array import read_array
from glm130b.data.reading.pieces import Reading, cut
from glm130b.data.reading.records import PieceReader, Record
from glm130b.data.reading.rejection import Damaged, Rejection

ROWS: list[Any] = [{"text": "one"}, {"text": "中\n]", "n": [1, {"a": 2}]}, 12, {"text": "x" * 100}, []]


@pytest.mark.parametrize("characters", [1, 3, 1 << 16])
@pytest.mark.parametrize("indent", [None, 2])
def test_every_element_comes_with_its_line(
    monkeypatch: pytest.MonkeyPatch, characters: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_array, "_CHARACTERS", characters)
    text = f" \n{json.dumps(ROWS, indent=indent, ensure_ascii=False)}\n"
    found = list(read_array(io.BytesIO(text.encode()), longest=200))
    assert [value for _, value in found] == ROWS
    assert [line for line, _ in found] == ([2] * 5 if indent is None else [3, 6, 15, 16, 19])
    assert list(read_array(io.BytesIO(b"[ ]"), longest=200)) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'[{"a": 1}\n,{"b": ]', "line 2 has an element that is broken"),
        (b'[{"a": 1}\n{"b": 1}]', "line 2 has '{' where ',' is due"),
        (b'[{"a": 1}\n', "line 2 ends without ','"),
        (b'[{"a": 1},', "has an element that is broken"),
        (b'[{"a": 1}] x', "has something after its array"),
        (b'[{"a": "\xff"}]', "bytes that are not UTF-8"),
        (b'["' + b"x" * 300 + b'"]', "longer than 200 characters"),
        (b"[" * 100_000, "is nested too deep"),
    ],
)
def test_where_an_array_is_broken_is_told(monkeypatch: pytest.MonkeyPatch, content: bytes, problem: str) -> None:
    monkeypatch.setattr(json_array, "_CHARACTERS", 1 << 20 if b"[[" in content else 8)
    with pytest.raises(Damaged) as error:
        list(read_array(io.BytesIO(content), longest=200))
    assert problem in str(error.value)


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_a_json_file_may_be_an_array_or_lines(tmp_path: Path, name: str) -> None:
    def read(text: str) -> list[Record]:
        content = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        pieces = cut(tmp_path / name, reading=Reading(), piece_bytes=20)
        return [record for piece in pieces for record in PieceReader(piece, Reading())]

    records = read(json.dumps(ROWS, indent=1))
    assert [record.value for record in records if not isinstance(record.value, Rejection)] == [
        ROWS[0],
        ROWS[1],
        ROWS[3],
    ]
    assert [record.value.kind for record in records if isinstance(record.value, Rejection)] == ["no object"] * 2
    assert [record.value for record in read('{"text": "a"}\n{"text": "b"}\n')] == [{"text": "a"}, {"text": "b"}]
