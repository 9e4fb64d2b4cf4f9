"""``glm130b generate RUN --prompt TEXT``: fill blanks with a trained model."""

import argparse
from pathlib import Path

from glm130b.environment import Launch, prepare_environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of a run that has trained, such as runs/tiny")
    parser.add_argument(
        "--prompt",
        action="append",
        required=True,
        help="text with [MASK], [sMASK] or [gMASK]; without one it is continued; may be repeated",
    )
    parser.add_argument("--max-tokens", type=_from_one, default=48, help="longest answer for one blank (default 48)")
    parser.add_argument(
        "--temperature", type=_from_zero, default=0.0, help="0 takes the most likely token each time (default)"
    )
    parser.add_argument(
        "--top-k", type=_from_one, default=0, help="draw from the k most likely tokens only (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws")


def run(arguments: argparse.Namespace) -> int:
    """Print each prompt and its filling."""
    prepare_environment(Launch(rank=0, local_rank=0, world_size=1))
    from glm130b.inference.blank_filling import fill_blanks
    from glm130b.inference.loading import load_run
    from glm130b.inference.sampling import Sampling

    trained = load_run(arguments.run)
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.seed)
    for prompt in arguments.prompt:
        filling = fill_blanks(trained, prompt, max_tokens=arguments.max_tokens, sampling=sampling)
        print(f"\nprompt  {prompt}")
        for blank in filling.blanks:
            print(f"blank   {blank!r}")
        print(f"filled  {filling.text}")
    return 0


def _from_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _from_zero(text: str) -> float:
    if not 0 <= (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return number
