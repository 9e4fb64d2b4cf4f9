"""Kills a random rank at random instants over one tiny run, and compares its end with an undisturbed one, bit for bit.

    make demo-data; python benchmarks/chaos.py                   # 100 kills, half an hour on two cores
    python benchmarks/chaos.py --kills 5

Two processes under launch/supervised.sh, which starts them again as it does for a user. A third of the kills hits a
start (imports, meeting, restoring), a third a step, a third a save, in an order drawn from ``--seed``; between those of
the last two kinds the run moves on, and it is long enough to outlive all kills.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

SAVE_EVERY, ROWS = 10, 4
STEPS_PER_KILL = 15
"""More than the run moves on between two kills, in the mean of many, so that it outlives them all."""
TINY = [
    "parallel.tensor=1",
    "parallel.pipeline=1",
    "parallel.data=2",
    "model.num_layers=2",
    "model.hidden_size=32",
    "model.ffn_hidden_size=88",
    "data.sequence_length=64",
    "objective.samples_per_row=1",
    f"batch={{micro_size: 2, global_size: {ROWS}}}",
    "batch.ramp=null",
    "evaluation={every_steps: 1000000, samples: 4}",
    f"checkpoint.every_steps={SAVE_EVERY}",
    "supervision.restart_delay_seconds=0",
    "logging.wandb=disabled",
]


class Job:
    """One run under its supervisor."""

    def __init__(self, words: list[str], *, folder: Path, name: str, restarts: int) -> None:
        command = ["bash", str(ROOT / "launch" / "supervised.sh"), *words, f"folder={folder}", f"name={name}"]
        environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "DS_ACCELERATOR": "cpu",
            "GLM130B_RESTARTS": str(restarts),
        }
        self.folder = folder / name
        self.began = time.monotonic()
        self._output = (folder / f"{name}.txt").open("wb")
        self._agent = psutil.Popen(command, stdout=self._output, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)

    def ranks(self) -> dict[int, psutil.Process]:
        """The processes that the launcher has just now, by rank."""
        found = {}
        for child in self._agent.children() if self._agent.is_running() else []:
            try:
                found[int(child.environ()["RANK"])] = child
            except (psutil.Error, KeyError):  # it has just ended, or is not a rank yet
                continue
        return found

    def wait_until(self, condition: Callable[[], bool], *, seconds: float = 300.0) -> None:
        """Raises when the job ends before that, or when it takes too long."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self._agent.poll() is not None:
                raise RuntimeError(f"the job has ended, status {self._agent.poll()}; see {self._output.name}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited for {seconds:g} s; see {self._output.name}")
            time.sleep(0.002)

    def finish(self) -> float:
        """Seconds from the job's beginning to its end."""
        if status := self._agent.wait(timeout=3600):
            raise RuntimeError(f"the job has failed, status {status}; see {self._output.name}")
        self._output.close()
        return time.monotonic() - self.began

    def end(self) -> None:
        """Whatever state it is in."""
        for process in [*self._agent.children(recursive=True), self._agent] if self._agent.is_running() else []:
            process.kill()

    @property
    def step(self) -> int:
        """The last step that was recorded."""
        file = self.folder / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        try:
            return int(json.loads(lines[-1])["step"]) if lines else 0
        except ValueError:  # it is being written
            return 0

    @property
    def last_written(self) -> int:
        """Changes with every step, and when a start has dropped the steps that it takes again."""
        file = self.folder / "metrics.jsonl"
        return file.stat().st_mtime_ns if file.exists() else 0

    @property
    def is_saving(self) -> bool:
        return any((self.folder / "checkpoints").glob(".step-*.writing"))

    def count(self, event: str) -> int:
        """How often the run's journal has it."""
        file = self.folder / "events.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return sum(json.loads(line)["name"] == event for line in lines)

    def weights(self) -> dict[str, str]:
        """SHA-256 of every file of weights and moments in the newest checkpoint."""
        checkpoints = self.folder / "checkpoints"
        newest = checkpoints / (checkpoints / "latest").read_text(encoding="utf-8").strip()
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(newest.glob("*.distcp"))}


def kill_once(job: Job, dice: random.Random, *, start_seconds: float) -> str:
    """Kill one rank of a job that has just been started, and wait until the launcher has started it again; when."""
    ranks, written, began = job.ranks(), job.last_written, time.monotonic()
    moment, wait_seconds = dice.choice(("start", "step", "save")), dice.uniform(0.0, start_seconds)
    if moment == "start":
        job.wait_until(lambda: job.last_written != written or time.monotonic() > began + wait_seconds)
    else:
        job.wait_until(lambda: job.last_written != written)
        target = job.step + dice.randrange(1, 2 * SAVE_EVERY)
        job.wait_until(lambda: job.step >= target)
        if moment == "save":
            job.wait_until(lambda: job.is_saving)
        time.sleep(dice.uniform(0.0, 0.05))
    victim = dice.choice(sorted(ranks))
    print(f"  rank {victim} in a {moment}, step {job.step}", flush=True)
    ranks[victim].kill()
    old = {process.pid for process in ranks.values()}
    job.wait_until(lambda: len(new := job.ranks()) == len(old) and not old & {process.pid for process in new.values()})
    return moment


def chaos(options: Namespace, folder: Path) -> bool:
    """Both runs and what they came to; whether they ended alike."""
    words = [*options.words, *TINY, f"train_samples={STEPS_PER_KILL * (options.kills + 1) * ROWS}"]
    calm = Job(words, folder=folder, name="undisturbed", restarts=0)
    try:
        calm.wait_until(lambda: calm.step > 0)
        start_seconds = time.monotonic() - calm.began
        calm_seconds = calm.finish()
    finally:
        calm.end()
    print(f"undisturbed: {calm.step} steps in {calm_seconds:.0f} s, the first after {start_seconds:.1f} s", flush=True)

    dice, moments = random.Random(options.seed), Counter[str]()
    job = Job(words, folder=folder, name="chaos", restarts=options.kills)
    try:
        job.wait_until(lambda: len(job.ranks()) == 2)
        for _ in range(options.kills):
            moments[kill_once(job, dice, start_seconds=start_seconds)] += 1
        seconds = job.finish()
    finally:
        job.end()
    same = job.weights() == calm.weights()
    print(
        f"kills: {options.kills} ({', '.join(f'{count} in a {moment}' for moment, count in sorted(moments.items()))})"
    )
    print(f"restarts: {options.kills}, {job.count('resume')} of them came so far as to load a checkpoint")
    print(f"checkpoints: {job.count('checkpoint saved')} saved, {job.count('damaged checkpoint')} found damaged")
    print(f"disturbed: {job.step} steps in {seconds:.0f} s")
    print(
        f"lost per kill: {(seconds - calm_seconds) / options.kills:.1f} s, of which a start takes {start_seconds:.1f} s"
    )
    print(f"final weights and moments: {'bit-identical' if same else 'DIFFERENT'}")
    return same and job.step == calm.step


def main() -> int:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the two runs are kept; a temporary folder by default")
    parser.add_argument("words", nargs="*", default=[str(ROOT / "configs" / "tiny.yaml")], help="CONFIG and overrides")
    options = parser.parse_args()
    print(f"machine: {describe_machine(torch.device('cpu'))}, {os.cpu_count()} cores")
    if options.folder:
        options.folder.mkdir(parents=True)
        return int(not chaos(options, options.folder))
    with tempfile.TemporaryDirectory() as folder:
        return int(not chaos(options, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
