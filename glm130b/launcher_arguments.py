"""``glm130b launcher-arguments``: what the scripts of ``launch/`` have to tell a launcher on this machine."""

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path

from glm130b.config.derived import least_world_size
from glm130b.config.files import check_files
from glm130b.config.load import load_config


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--launcher", choices=("deepspeed", "torchrun"), default="deepspeed")


def run(arguments: Namespace) -> int:
    """Print ``--num_accelerators N`` or ``--nproc-per-node N``: without a GPU the launchers see one slot.

    Where there are GPUs deepspeed counts them itself and the line is empty; torchrun is told to.
    """
    config = load_config(arguments.config, arguments.overrides)
    if arguments.launcher == "torchrun":
        check_files(config)  # torchrun would start again after a mistake that stands there already
        print(f"--nproc-per-node {'gpu' if _has_gpu() else least_world_size(config)}")
    else:
        print("" if _has_gpu() else f"--num_accelerators {least_world_size(config)}")
    return 0


def _has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
