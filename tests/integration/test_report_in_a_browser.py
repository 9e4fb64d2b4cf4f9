"""The report in a real browser: it draws, it asks the network for nothing, and its switches do what they say."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.invented_run import invented_records, write_run
from glm130b.cli import main

pytestmark = pytest.mark.full

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_SECONDS = 120
STEPS = 600
NAMES = ("<b>first", "second")
EVENTS = (
    {"time": "2022-05-06T10:00:00+00:00", "step": 300, "name": "gradient norm", "message": "<i>9</i>", "details": {}},
    {"time": "2022-05-06T11:00:00+00:00", "step": 400, "name": "resume", "message": "goes on", "details": {}},
)


class Opened(NamedTuple):
    """A page with all charts drawn, and what it has complained of and asked for since."""

    page: Any
    complaints: list[str]
    requests: list[str]

    def charts(self, expression: str) -> Any:
        """The value of a JavaScript expression of ``chart``, for every chart."""
        return self.page.evaluate(f"[...document.querySelectorAll('.chart')].map((chart) => {expression})")

    def until(self, condition: str) -> None:
        """Wait for it to hold for every chart; the page itself lets nobody wait in it, since it forbids ``eval``."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if all(self.charts(condition)):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{condition}: holds for {self.charts(condition)}")

    def settle(self) -> None:
        self.page.wait_for_selector("html[data-drawn=all]", state="attached")

    def double_click(self, target: str) -> None:
        """Both presses at one instant of the page's clock, a minute on: Plotly takes two that are half a second apart,
        as they are in a busy page, for single ones, and a third that is near for a longer train."""
        self.page.clock.set_fixed_time(self.page.evaluate("Date.now()") / 1000 + 60)
        self.page.dblclick(target)


def missing(what: str) -> None:
    """A machine without a browser may do without these tests; CI has one."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("the package playwright")
    chromium = shutil.which("chromium") or missing("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on one page, with every chart there is."""
    return reported(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def short_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one chart of each sort, which is drawn sooner."""
    return reported(
        tmp_path_factory.mktemp("short"), "step|samples|kind|loss|gradient_norm.*|learning_rate|tokens/[^.]+"
    )


def reported(folder: Path, wanted: str = ".*") -> Path:
    config = "data:\n  sequence_length: 2048\nseed: {}\n"
    for seed, name in enumerate(NAMES):
        records = invented_records(steps=STEPS - 100 * seed, layers=6, seed=seed, spike_steps=[300])
        kept = [{name: value for name, value in record.items() if re.fullmatch(wanted, name)} for record in records]
        write_run(folder / name, kept, events=EVENTS, config=config.format(seed))
    output = folder / "report.html"
    assert main(["report", *(str(folder / name) for name in NAMES), "--output", str(output)]) == 0
    return output


@contextmanager
def opening(browser: Any, report: Path) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(1000 * PATIENCE_SECONDS)
    opened = Opened(context.new_page(), [], [])
    opened.page.on("console", lambda message: opened.complaints.append(message.text))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.goto(report.as_uri())
    opened.settle()
    yield opened
    assert opened.complaints == []
    context.close()


@pytest.fixture
def opened(browser: Any, short_report: Path) -> Iterator[Opened]:
    with opening(browser, short_report) as opened:
        yield opened


def test_it_draws_every_chart_and_asks_for_nothing(browser: Any, report: Path) -> None:
    with opening(browser, report) as opened:
        assert opened.requests == [report.as_uri()]
        drawn = opened.charts("chart.querySelectorAll('.scatterlayer .trace, .heatmaplayer .hm').length")
        assert len(drawn) > 25
        assert all(drawn)
        assert opened.page.title() == " · ".join(NAMES)
        assert opened.page.locator("h1 b, td i").count() == 0


def test_a_stretch_zoomed_in_one_chart_is_zoomed_in_all(opened: Opened) -> None:
    plot = opened.page.locator("#loss .nsewdrag").bounding_box()
    middle = plot["y"] + plot["height"] / 2
    opened.page.mouse.move(plot["x"] + 0.25 * plot["width"], middle)
    opened.page.mouse.down()
    opened.page.mouse.move(plot["x"] + 0.5 * plot["width"], middle, steps=5)
    opened.page.mouse.up()
    opened.until("chart._fullLayout.xaxis.range[1] < 320")
    assert all(each == pytest.approx([150, 300], abs=5) for each in opened.charts("chart._fullLayout.xaxis.range"))
    lowest, highest = opened.page.evaluate("document.getElementById('loss')._fullLayout.yaxis.range")
    assert highest - lowest < 3, "the loss of that stretch fills the chart"
    opened.double_click("#gradient-norm .nsewdrag")
    opened.until(f"chart._fullLayout.xaxis.range[1] >= {STEPS - 110}")


def test_a_second_double_click_shows_how_the_loss_began(opened: Opened) -> None:
    highest = "document.getElementById('loss')._fullLayout.yaxis.range[1]"
    settled = opened.page.evaluate(highest)
    assert settled < 8
    opened.double_click("#gradient-norm .nsewdrag")
    opened.until(f"{highest} > 9")
    opened.double_click("#gradient-norm .nsewdrag")
    opened.until(f"Math.abs({highest} - {settled}) < 0.01")


def test_charts_far_from_the_window_wait_until_they_come_near(browser: Any, report: Path) -> None:
    """In a page that is never idle; paper does not wait."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(1000 * PATIENCE_SECONDS)
    page.add_init_script("window.requestIdleCallback = () => 0")
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-drawn=near]", state="attached")
    drawn = "document.querySelectorAll('.chart .main-svg:first-child').length"
    assert 0 < page.evaluate(drawn) < 8
    last = page.locator(".chart").last
    last.scroll_into_view_if_needed()
    last.locator(".main-svg").first.wait_for()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(drawn) == page.locator(".chart").count() > 25
    page.close()


def test_a_run_is_switched_off_in_all_charts(opened: Opened) -> None:
    visible = "chart.data.filter((trace) => trace.visible !== false).map((trace) => trace.meta.run)"
    assert all(1 in runs or 0 in runs for runs in opened.charts(visible))
    opened.page.get_by_role("button", name="second").click()
    opened.settle()
    assert not any(1 in runs for runs in opened.charts(visible))
    assert opened.page.locator('[data-of="1"]').count() > 3
    assert opened.page.locator('[data-of="1"]:visible').count() == 0
    opened.page.get_by_role("button", name="second").press("Enter")
    opened.settle()
    assert sum(1 in runs for runs in opened.charts(visible)) > 3


def test_dark_and_light(opened: Opened) -> None:
    def looks() -> tuple[str, str]:
        page = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return page, opened.page.evaluate("document.getElementById('loss').data[0].line.color")

    light = looks()
    opened.page.click("#theme")
    opened.settle()
    assert all(one != other for one, other in zip(light, looks(), strict=True))
    assert opened.page.get_attribute("#theme", "aria-pressed") == "true"
    opened.page.emulate_media(media="print")
    assert looks()[0] == "rgb(255, 255, 255)"


def test_the_axis_counts_steps_samples_or_tokens(opened: Opened) -> None:
    last = "Math.max(...document.getElementById('learning-rate').data[0].x)"
    assert opened.page.evaluate(last) == STEPS
    samples = opened.page.evaluate("JSON.parse(document.getElementById('report').textContent).axes[0].sample.at(-1)")
    opened.page.click("[data-axis=sample]")
    opened.settle()
    assert opened.page.evaluate(last) == samples
    opened.page.click("[data-axis=token]")
    opened.settle()
    assert opened.page.evaluate(last) == pytest.approx(samples * 2048)


def test_smoothing(opened: Opened) -> None:
    means = "chart.data.some((trace) => trace.meta.role === 'mean' && trace.visible)"
    assert any(opened.charts(means))
    opened.page.click("#smooth")
    opened.settle()
    assert not any(opened.charts(means))


def test_a_phone_scrolls_down_and_never_sideways(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 400, "height": 800})
    opened.page.reload()
    opened.settle()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_camera_saves_a_picture_for_paper(opened: Opened, tmp_path: Path) -> None:
    opened.page.hover("#loss .nsewdrag")
    with opened.page.expect_download() as download:
        opened.page.click('#loss [data-title="Save as a picture for a paper"]')
    picture = tmp_path / "loss.png"
    download.value.save_as(picture)
    header = picture.read_bytes()[:24]
    assert download.value.suggested_filename == "loss.png"
    assert [int.from_bytes(header[place : place + 4], "big") for place in (16, 20)] == [3000, 1680]


def test_paper(opened: Opened, tmp_path: Path) -> None:
    """Printed from the dark: white, and no chart wider than the paper."""
    opened.page.click("#theme")
    opened.settle()
    opened.page.evaluate("addEventListener('beforeprint', () => Object.assign(window, printed()))")
    opened.page.evaluate("""() => { window.printed = () => ({
        widths: [...document.querySelectorAll('.chart')].map((chart) => chart._fullLayout.width),
        colour: document.getElementById('loss').data[0].line.color }) }""")
    before = opened.page.evaluate("document.getElementById('loss').data[0].line.color")
    opened.page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert max(opened.page.evaluate("window.widths")) <= 680
    assert opened.page.evaluate("window.colour") != before


def test_pictures(browser: Any, tmp_path: Path) -> None:
    """Through kaleido, which finds the same browser."""
    folder = write_run(tmp_path / "run", [{"kind": "train", "step": n, "samples": n, "loss": 1 / n} for n in (1, 2, 3)])
    output = tmp_path / "report.html"
    assert main(["report", str(folder), "--output", str(output), "--png", str(tmp_path / "png")]) == 0
    (picture,) = (tmp_path / "png").iterdir()
    assert picture.name == "loss.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_benchmark(root: Path, browser: Any) -> None:
    options = ("--steps", "50", "--layers", "2", "--openings", "1")
    command = [sys.executable, root / "benchmarks" / "report.py", *options]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    assert re.search(r"command: [\d.]+ s .*, peak [\d.]+ GB, page [\d.]+ MB", finished.stdout)
    assert all(f"{sight}: " in finished.stdout for sight in ("open", "all charts"))
