"""``glm130b tokenizer train | show``."""

from argparse import ArgumentParser, Namespace

from glm130b.data.tokenizers import show, training

_COMMANDS = {
    "train": (training, "train a SentencePiece tokenizer on your text"),
    "show": (show, "show what a tokenizer is and how it cuts a text"),
}


def add_arguments(parser: ArgumentParser) -> None:
    """The words after ``glm130b tokenizer``."""
    commands = parser.add_subparsers(dest="tokenizer_command", metavar="train | show", required=True)
    for name, (module, summary) in _COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=summary, description=summary))


def run(arguments: Namespace) -> int:
    """The exit status of the chosen command."""
    module, _ = _COMMANDS[arguments.tokenizer_command]
    return module.run(arguments)
