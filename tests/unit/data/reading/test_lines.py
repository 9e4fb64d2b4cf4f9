"""Lines of a stream: whatever the cuts, each is read once and whole, and none is held that is too long."""

import io
import tracemalloc
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from glm130b.data.reading.lines import read_lines


@given(st.lists(st.sampled_from([b"", b"a", b"bb", b"\n", b"\n\n", b"ccccccc"])).map(b"".join), st.data())
def test_ranges_share_the_lines_among_them(content: bytes, data: st.DataObject) -> None:
    longest = 4
    cuts = sorted(data.draw(st.sets(st.integers(0, len(content) + 3)), label="cuts") | {0})
    whole = list(read_lines(io.BytesIO(content), longest=longest))
    parts = [
        list(read_lines(io.BytesIO(content), start=start, end=end, longest=longest))
        for start, end in pairwise([*cuts, None])
    ]
    found = [(line.offset, line.content) for part in parts for line in part]
    assert found == [(line.offset, line.content) for line in whole]
    assert [line.number for line in whole] == list(range(1, len(whole) + 1))
    expected = content.splitlines(keepends=True)
    assert [line.content for line in whole] == [
        line if len(line.rstrip(b"\n")) <= longest else None for line in expected
    ]


def test_an_endless_line_takes_no_memory() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            buffer[:] = b"x" * len(buffer)
            self.given += len(buffer)
            return len(buffer)

    raw = Endless()
    tracemalloc.start()
    (line,) = read_lines(io.BufferedReader(raw), end=50 << 20, longest=1 << 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line.content is None
    assert peak < 8 << 20
    assert raw.given < 60 << 20  # and what lies past the range is not read
