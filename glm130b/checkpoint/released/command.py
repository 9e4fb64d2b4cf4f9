"""``glm130b convert``: checkpoints in the layout of the GLM-130B release, in and out."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from glm130b.config.errors import UserError
from glm130b.config.load import load_config
from glm130b.environment import Launch, prepare_environment

_FORMATS = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def add_arguments(parser: ArgumentParser) -> None:
    ways = parser.add_subparsers(dest="way", metavar="import|export", required=True)

    into = ways.add_parser("import", help="a released checkpoint becomes the first checkpoint of a run")
    into.add_argument("released", type=Path, help="folder that holds `latest`")
    into.add_argument("config", help="a file of configs/ that describes the run")
    into.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
    into.add_argument("--samples", type=int, default=0, metavar="N", help="rows the run counts as consumed (default 0)")

    out = ways.add_parser("export", help="a checkpoint of a run becomes a released one")
    out.add_argument("run", type=Path, help="folder of a run, such as runs/tiny")
    out.add_argument("output", type=Path, help="folder to write")
    out.add_argument("--tensor", type=int, required=True, metavar="N", help="shards to write; the release has 8")
    out.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step (default: the newest)")
    out.add_argument("--dtype", choices=_FORMATS, default="fp16", help="number format to round to (default fp16)")


def run(arguments: Namespace) -> int:
    """Convert, and say in one line what was written."""
    prepare_environment(Launch(rank=0, local_rank=0, world_size=1))
    try:
        return _import(arguments) if arguments.way == "import" else _export(arguments)
    except OSError as error:
        place = error.filename or "the place to write to"
        raise UserError(f"{place}: cannot be written ({error.strerror}); free some, or name another") from error


def _import(arguments: Namespace) -> int:
    from glm130b.checkpoint.released.importing import import_released

    config = load_config(arguments.config, arguments.overrides)
    checkpoint = import_released(arguments.released, config, samples=arguments.samples)
    print(f"{checkpoint}: written, weights without optimizer state; training goes on from here")
    if config.model.rotary_table != "fp16":
        print("note: the original computed its rotary angles in fp16; model.rotary_table=fp16 gives the same logits")
    return 0


def _export(arguments: Namespace) -> int:
    import torch

    from glm130b.checkpoint.folder import CheckpointFolder
    from glm130b.checkpoint.released.exporting import export_released

    if arguments.tensor < 1:
        raise UserError(f"--tensor: {arguments.tensor} is no number of shards; write 1 or more")
    folder = CheckpointFolder(arguments.run / "checkpoints")
    checkpoint = folder.latest() if arguments.step is None else folder.at(arguments.step)
    if checkpoint is None:
        raise UserError(f"{arguments.run}: has no checkpoint; give the folder of a run that has trained")
    dtype = getattr(torch, _FORMATS[arguments.dtype])
    export_released(checkpoint, arguments.output, num_shards=arguments.tensor, dtype=dtype)
    print(f"{arguments.output}: {checkpoint.name} written as {arguments.tensor} shards of {arguments.dtype}")
    return 0
