"""Train every config of a folder, then compare the runs in one table and one plot.

    python tools/ablation.py configs/ablations/norms [section.key=value ...]

Finished runs are not trained again, an interrupted one goes on from its checkpoint, so the same command always ends in
the whole comparison. The configs name one common ``folder``, into which ``comparison.md``, ``.svg`` and ``.png`` are
written, and a ``name`` each. Nothing is trained before all of them may be.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from comparison import Run, write_comparison

from glm130b.config.derived import least_world_size, num_parameters
from glm130b.config.errors import UserError
from glm130b.config.files import check_files
from glm130b.config.load import base_of, load_config
from glm130b.config.sections import RunConfig

LAUNCH = Path(__file__).resolve().parents[1] / "launch" / "pretrain.sh"
PROCESSES_PER_CORE = 4
"""More would swap and time out rather than train; with a GPU for each process there are cores enough."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, compare, and return the exit status: 2 after a mistake of the user's, 1 when a run failed."""
    parser = argparse.ArgumentParser(description="Train every config of a folder and compare the runs.")
    parser.add_argument("configs", type=Path, help="folder of .yaml files, one a run")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to every one of them")
    words = parser.parse_args(arguments)
    try:
        runs = read_configs(words.configs, words.overrides)
        for path, config in runs.items():
            if not is_finished(config):
                train(path, config, words.overrides)
    except UserError as error:
        print(*(f"ablation: error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return error.exit_status
    except subprocess.CalledProcessError as error:
        print(f"ablation: error: status {error.returncode} of {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    page = write_comparison(map(finished_run, runs.values()), common_folder(runs), title=words.configs.resolve().name)
    print(f"{page}:\n\n{page.read_text(encoding='utf-8')}")
    return 0


def read_configs(folder: Path, overrides: Sequence[str]) -> dict[Path, RunConfig]:
    """The runs of a folder by their files; raises UserError with the problems of all of them."""
    runs, problems = {}, []
    for path in run_files(folder):
        try:
            runs[path] = load_config(path, overrides)
            check_start(runs[path])
        except UserError as error:
            problems += [f"{path}: {problem}" for problem in error.problems]
    if len(folders := {config.folder for config in runs.values()}) > 1:
        problems.append(f"folder: the runs go to {', '.join(sorted(folders))}; write one folder in all of {folder}")
    for name, count in Counter(config.name for config in runs.values()).items():
        if count > 1:
            problems.append(f"name: {count} files of {folder} are called {name!r}; write a name of its own in each")
    if problems:
        raise UserError(problems)
    return runs


def run_files(folder: Path) -> list[Path]:
    """The configs of a folder, one a run; raises UserError for a folder of such folders, and for one without any.

    Folders below it may hold bases of its configs, and what its runs have left.
    """
    paths, below = sorted(folder.glob("*.yaml")), sorted(folder.glob("*/*.yaml"))
    bases = set()
    for path in (*paths, *below):
        with suppress(UserError):  # it is told when the config is loaded
            if base := base_of(path):
                bases.add(base.resolve())
    if inner := sorted({str(p.parent) for p in below if p.resolve() not in bases and p.name != "config.yaml"}):
        raise UserError(f"{folder}: has its runs in {', '.join(inner)}; name one of these folders")
    if not paths:
        raise UserError(f"{folder}: holds no .yaml file; name a folder such as configs/ablations/norms")
    return paths


def check_start(config: RunConfig) -> None:
    """Raise UserError if the run is still to be trained and its files are missing or its processes too many."""
    if is_finished(config):
        return
    problems: list[str] = []
    try:
        check_files(config)
    except UserError as error:
        problems += error.problems
    processes, cores = num_processes(config), os.cpu_count() or 1
    if processes > PROCESSES_PER_CORE * cores:
        problems.append(
            f"parallel: {processes} processes (tensor x pipeline x data) are too many for {cores} cores, at most "
            f"{PROCESSES_PER_CORE} each; write a smaller layout, or train it on larger machines by launch/pretrain.sh"
        )
    if problems:
        raise UserError(problems)


def num_processes(config: RunConfig) -> int:
    """As many as the layout takes; one replica where ``parallel.data`` is open."""
    return least_world_size(config)


def common_folder(runs: dict[Path, RunConfig]) -> Path:
    return Path(next(iter(runs.values())).folder)


def is_finished(config: RunConfig) -> bool:
    """Whether the run was trained to its end, and evaluated there; raises UserError if by another config."""
    folder = Path(config.folder, config.name)
    metrics = folder / "metrics.jsonl"
    if not metrics.exists() or not (lines := metrics.read_text().splitlines()):
        return False
    try:
        last = json.loads(lines[-1])
    except ValueError:  # a kill cut the line short
        return False
    if last["kind"] != "validation" or last["samples"] < config.train_samples:
        return False
    if load_config(folder / "config.yaml") != config:
        raise UserError(f"{folder}: was trained by another config than now; remove it, or write another folder")
    return True


def train(path: Path, config: RunConfig, overrides: Sequence[str]) -> None:
    """Train one run by the real launcher, on as many processes as its layout takes; raises CalledProcessError."""
    deepspeed = Path(sys.executable).with_name("deepspeed")
    options = ["--log_level", "error", "--master_port", _free_port(), "--num_accelerators", num_processes(config)]
    command = [deepspeed, *options, LAUNCH, path, *overrides]
    subprocess.run([str(word) for word in command], check=True)


def finished_run(config: RunConfig) -> Run:
    return Run.read(
        Path(config.folder, config.name, "metrics.jsonl"), name=config.name, parameters=num_parameters(config.model)
    )


def _free_port() -> int:
    """The launcher's own port is always the same, so that two jobs on a machine would meet there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
