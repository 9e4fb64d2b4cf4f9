"""The console command ``glm130b``: one line for each thing a user does beside training.

A command's module is imported when it is chosen, so ``plan`` starts without torch. It offers ``add_arguments(parser)``
and ``run(arguments) -> int``. An argument named ``overrides`` takes ``section.key=value`` words wherever they stand.
"""

import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from glm130b import __version__
from glm130b.config.errors import UserError


class Command(NamedTuple):
    """A subcommand: where it lives and what it does; without a summary it is for our own scripts and not listed."""

    module: str
    summary: str | None


COMMANDS = {
    "plan": Command("glm130b.plan.command", "show what a config means: grid, parameters, schedule"),
    "preflight": Command("glm130b.preflight.command", "check that this machine is fit, and fit for a run"),
    "tokenizer": Command("glm130b.data.tokenizers.command", "train a tokenizer on your text, or look at one"),
    "clean": Command("glm130b.data.cleaning.command", "drop poor and nearly equal texts"),
    "prepare": Command("glm130b.data.preparation.command", "turn text into a corpus to train on"),
    "verify": Command("glm130b.data.corpus.verification", "check a corpus: sizes, checksums, every token"),
    "samples": Command("glm130b.provenance.command", "show which documents a step of a run reads, and the reverse"),
    "checkpoint": Command("glm130b.checkpoint.command", "list, inspect, verify and prune the checkpoints of a run"),
    "report": Command("glm130b.report.command", "draw what runs have done on one page"),
    "generate": Command("glm130b.inference.command", "fill the blanks of a text with a trained model"),
    "convert": Command(
        "glm130b.checkpoint.released.command", "turn a released GLM-130B checkpoint into a run's, and back"
    ),
    "dashboard": Command("glm130b.report.dashboard_command", "make a page of Weights & Biases for your runs"),
    "launcher-arguments": Command("glm130b.launcher_arguments", None),
}

_RESUMABLE = {"clean", "prepare"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen command and return its exit status; 2 when the user has something to mend."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = ArgumentParser(prog="glm130b", description="Train GLM-130B-style models, from a laptop CPU to 768 A100s.")
    parser.add_argument("-V", "--version", action="version", version=f"glm130b {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, command in COMMANDS.items():
        summary = command.summary
        subparser = (
            commands.add_parser(name, help=summary, description=summary) if summary else commands.add_parser(name)
        )
        if words[:1] == [name]:
            import_module(command.module).add_arguments(subparser)
    arguments = _parsed(parser, words)
    try:
        status: int = import_module(COMMANDS[arguments.command].module).run(arguments)
        sys.stdout.flush()
    except UserError as error:
        print(*(f"glm130b: error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        goes_on = "; the same command goes on where this one ended" if arguments.command in _RESUMABLE else ""
        print(f"glm130b: interrupted{goes_on}", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # who reads the output, such as `head`, has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes there at exit
        return 128 + signal.SIGPIPE  # as a shell reports a program that the signal ended
    return status


def _parsed(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """The arguments, with overrides in any place; argparse itself takes none that stands behind an option."""
    arguments, rest = parser.parse_known_args(words)
    strangers = [word for word in rest if word.startswith("-") or "=" not in word or "overrides" not in arguments]
    if strangers:
        parser.error(f"unrecognized arguments: {' '.join(strangers)}")
    if rest:
        arguments.overrides += rest
    return arguments
