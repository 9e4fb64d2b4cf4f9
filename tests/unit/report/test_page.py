"""The page: nothing of a run's files acts in it, and nothing is fetched."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.invented_run import write_run
from glm130b.report.charts import charts
from glm130b.report.page import page
from glm130b.report.palette import DARK, LIGHT, Palette
from glm130b.report.reading import RunHistory, read_run

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Tags(HTMLParser):
    """Names of all elements, and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def evil_run(folder: Path, name: str) -> RunHistory:
    records = [
        {"kind": "train", "step": n, "samples": n, f"loss/{EVIL}": 1.0, f"loss/text.{EVIL}": 2.0, f"tokens/{EVIL}": n}
        for n in (1, 2, 3)
    ]
    changes = {EVIL: [EVIL, 2]}
    events = [
        {"time": EVIL, "step": 2, "name": what, "message": EVIL, "details": {"changes": changes}}
        for what in (EVIL, "resume")
    ]
    config = f"a: {json.dumps(EVIL + name)}\n{json.dumps(EVIL)}: 1\n"
    return read_run(write_run(folder, records, events=events, config=config, ended=EVIL), name=EVIL + name)


def whole(runs: list[RunHistory]) -> str:
    return "".join(page(runs, charts(runs), plotly_script="/* Plotly */"))


@pytest.mark.parametrize("count", [1, 2])
def test_text_of_files_is_only_text(tmp_path: Path, count: int) -> None:
    runs = [evil_run(tmp_path / str(index), str(index)) for index in range(count)]
    text = whole(runs)
    tags = Tags(text).found
    assert [tag for tag, _ in tags].count("script") == 3
    assert "img" not in [tag for tag, _ in tags]
    assert not [
        name for _, attributes in tags for name in attributes if name.startswith("on") or name in {"src", "href"}
    ]
    data = json.loads(re.search(r'id="report">(.*?)</script>', text, re.DOTALL)[1])
    assert data["runs"] == [run.name for run in runs]
    shown = [
        text
        for figure in data["figures"].values()
        for trace in figure["data"]
        for text in (trace.get("name", ""), trace.get("hovertemplate") or "", *trace.get("text", ()))
    ]
    assert any("&lt;script&gt;" in text for text in shown)
    assert not any("<script" in text or "<img" in text for text in shown)


def test_the_page_forbids_itself_every_connection(tmp_path: Path) -> None:
    text = whole([evil_run(tmp_path, "")])
    assert "default-src 'none'" in text
    assert "connect-src" not in text
    assert not re.search(r"https?://", text)


def test_axes_tell_samples_and_tokens_of_a_step(tmp_path: Path) -> None:
    records = [{"kind": "train", "step": n, "samples": 4 * n, "loss": 1.0} for n in range(1, 4)]
    run = read_run(write_run(tmp_path, records, config="data:\n  sequence_length: 10\n"), name="run")
    data = json.loads(re.search(r'id="report">(.*?)</script>', whole([run]), re.DOTALL)[1])
    assert data["axes"] == [{"step": [0, 1, 2, 3], "sample": [0, 4, 8, 12], "token": [0, 40, 80, 120]}]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast(palette: Palette) -> None:
    """WCAG 2.2: 4.5 for text, 3 for what is drawn."""
    for ground in (palette.page, palette.card):
        for text in (palette.ink, palette.quiet):
            assert contrast(text, ground) >= 4.5
        for drawn in (*palette.curves, palette.accent):
            assert contrast(drawn, ground) >= 3


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
