"""``glm130b plan``: what a config means and costs, before a GPU is asked for."""

from argparse import ArgumentParser, Namespace

from glm130b.config import derived
from glm130b.config.errors import UserError
from glm130b.config.load import load_config, read_config
from glm130b.plan.cluster import HELP, Cluster, read_hardware
from glm130b.plan.page import page
from glm130b.plan.search import search
from glm130b.plan.search_page import search_page

_OF_HARDWARE = ("gpus_per_node", "efficiency", "price", "search")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config", help="a file of configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
    parser.add_argument("--world-size", type=int, metavar="N", help="processes of the job, where parallel.data is open")
    parser.add_argument("--hardware", metavar="GPU", help=f"show memory, step time and cost too: {HELP}")
    parser.add_argument("--gpus-per-node", type=int, metavar="N", help="GPUs of one machine; 8")
    parser.add_argument("--efficiency", type=float, metavar="SHARE", help="of the peak, in large matrix products")
    parser.add_argument("--price", type=float, metavar="DOLLARS", help="of a GPU hour")
    parser.add_argument(
        "--search", action="store_true", help="find the fastest layouts that fit, as overrides to paste"
    )


def run(arguments: Namespace) -> int:
    """Print the plan, or the layouts that a search found; what breaks a rule raises ``UserError``."""
    cluster = _cluster(arguments)
    if cluster and arguments.search:
        print(_searched(arguments, cluster))
        return 0
    config = load_config(arguments.config, arguments.overrides, world_size=arguments.world_size)
    print(page(config, world_size=arguments.world_size, cluster=cluster))
    return 0


def _cluster(arguments: Namespace) -> Cluster | None:
    if arguments.hardware is None:
        given = [name for name in _OF_HARDWARE if getattr(arguments, name) not in (None, False)]
        if given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UserError(f"{names}: has no meaning without --hardware; write for example --hardware a100-80g")
        return None
    return read_hardware(
        arguments.hardware,
        gpus_per_node=8 if arguments.gpus_per_node is None else arguments.gpus_per_node,
        efficiency=arguments.efficiency,
        price=arguments.price,
    )


def _searched(arguments: Namespace, cluster: Cluster) -> str:
    """Over as many processes as are given, or as the config's own grid has, which need not keep the rules itself."""
    config = read_config(arguments.config, arguments.overrides)
    world_size: int | None = arguments.world_size
    if world_size is None and not isinstance(config.parallel.data, int):
        raise UserError("--search: parallel.data is open, so the number of GPUs is too; write --world-size N")
    world_size = derived.least_world_size(config) if world_size is None else world_size
    if world_size < 1:
        raise UserError(f"--world-size: {world_size} is no number of processes; write 1 or more")
    return search_page(config, cluster, search(config, cluster, world_size=world_size), world_size=world_size)
