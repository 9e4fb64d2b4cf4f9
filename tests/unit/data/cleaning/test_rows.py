"""Lines of pieces, counted through their files."""

import json
from pathlib import Path

from glm130b.data.cleaning.rows import Lines
from glm130b.data.reading.pieces import Piece


def test_lines_count_on_through_the_pieces_of_a_file(tmp_path: Path) -> None:
    a, b = (Piece(Path(name), 0, 0) for name in "ab")
    for rank, counts in enumerate(([3], [4, 2], [5, 1])):
        (tmp_path / f"{rank:05d}.lines").write_text(json.dumps(counts))
    lines = Lines(tmp_path, [(a,), (a, b), (b, a)])
    assert lines.place(0, 0, 3) == (Path("a"), 3)
    assert lines.place(1, 0, 1) == (Path("a"), 4)
    assert lines.place(1, 1, 2) == (Path("b"), 2)
    assert lines.place(2, 0, 5) == (Path("b"), 7)
    assert lines.place(2, 1, 1) == (Path("a"), 1)
