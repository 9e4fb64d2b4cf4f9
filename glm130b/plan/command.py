"""``glm130b plan``: what a config means, before a GPU is asked for."""

from argparse import ArgumentParser, Namespace

from glm130b.config.load import load_config
from glm130b.plan.page import page


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config", help="a file of configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
    parser.add_argument("--world-size", type=int, metavar="N", help="processes of the job, where parallel.data is open")


def run(arguments: Namespace) -> int:
    """Print the plan; a config that breaks a rule raises ``UserError``."""
    config = load_config(arguments.config, arguments.overrides, world_size=arguments.world_size)
    print(page(config, world_size=arguments.world_size))
    return 0
