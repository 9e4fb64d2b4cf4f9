"""``glm130b launcher-arguments``: what ``launch/pretrain.sh`` has to tell the deepspeed launcher on this machine."""

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path

from glm130b.config.load import load_config


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")


def run(arguments: Namespace) -> int:
    """Print ``--num_accelerators N``: without a GPU the launcher sees one slot and would start one process.

    Where there are GPUs the launcher counts them itself and the line is empty.
    """
    parallel = load_config(arguments.config, arguments.overrides).parallel
    processes = parallel.tensor * parallel.pipeline * (parallel.data or 1)
    print("" if _has_gpu() else f"--num_accelerators {processes}")
    return 0


def _has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
