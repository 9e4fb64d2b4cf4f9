"""How long ``glm130b report`` takes for a long run, how much memory, and how soon its page can be read.

    python benchmarks/report.py                                  # 100,000 steps of 70 layers, 0.6 GB of records
    python benchmarks/report.py --steps 2000 --layers 24 --runs 2

Peak memory is the kernel's VmHWM of the command's process. The page is opened in headless Chromium, once for each of
``--openings``: until everything in the window is drawn and the page has answered a click, and until all charts are
drawn. Needs the packages plotly and playwright.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

import torch
from invented_run import invented_records, write_run
from machine import describe_machine
from playwright.sync_api import sync_playwright

COMMAND = """
import sys, time
from glm130b.cli import main
status = main(sys.argv[1:])
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak, time.process_time())
sys.exit(status)
"""
BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=70)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--openings", type=int, default=5)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    print(describe_machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        runs = [
            written(folder / f"run-{seed}", arguments.steps, arguments.layers, seed) for seed in range(arguments.runs)
        ]
        size = sum((run / "metrics.jsonl").stat().st_size for run in runs)
        print(f"{arguments.runs} run of {arguments.steps:,} steps, {arguments.layers} layers: {size / 1e9:.2f} GB")
        page = folder / "report.html"
        seconds, busy, peak = reported(runs, page)
        size = page.stat().st_size
        print(f"command: {seconds:.1f} s ({busy:.1f} s of a core), peak {peak / 1e9:.2f} GB, page {size / 1e6:.1f} MB")
        opened = [open_page(page, arguments.chromium) for _ in range(arguments.openings)]
        for name, times in zip(("open", "all charts", "core"), zip(*opened, strict=True), strict=True):
            print(f"{name}: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")


def written(folder: Path, steps: int, layers: int, seed: int) -> Path:
    records = invented_records(
        steps=steps, layers=layers, seed=seed, spike_steps=range(steps // 20, steps, steps // 20)
    )
    return write_run(folder, records, config="data:\n  sequence_length: 2048\n")


def reported(runs: list[Path], page: Path) -> tuple[float, float, int]:
    """Seconds, seconds of a core, and peak bytes of the command."""
    began = time.perf_counter()
    words = [sys.executable, "-c", COMMAND, "report", *map(str, runs), "--output", str(page)]
    told = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return time.perf_counter() - began, float(told[-1]), int(told[-2]) * 1024


def open_page(page: Path, chromium: str) -> tuple[float, float, float]:
    """Seconds from the start of the navigation until the page is open, and until its last chart is drawn, in a browser
    just started; and seconds of a core that the page's process took."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER)
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        session = opened.context.new_cdp_session(opened)
        session.send("Performance.enable")
        opened.goto(page.as_uri(), wait_until="commit")
        opened.wait_for_selector("html:is([data-drawn=near], [data-drawn=all])", state="attached")
        opened.mouse.click(2, 2)  # returns when the page has taken it; where nothing is to be pressed
        answered = opened.evaluate("performance.now()") / 1000
        opened.wait_for_selector("html[data-drawn=all]", state="attached")
        whole = opened.evaluate("performance.now()") / 1000
        metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        browser.close()
    return answered, whole, metrics["ProcessTime"]


if __name__ == "__main__":
    main()
