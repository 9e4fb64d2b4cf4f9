"""``glm130b preflight``: is this machine fit, and fit for this run, before a job of many is started."""

import socket
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from glm130b.config.errors import UserError
from glm130b.config.load import load_config
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch, prepare_environment
from glm130b.preflight.finding import Finding, State, broken
from glm130b.preflight.page import is_fit, line, summary, write_json


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", help="a run's config; without it only the machine is checked")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
    parser.add_argument("--world-size", type=int, metavar="N", help="processes of the whole job")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs that the job uses on this machine")
    parser.add_argument("--quick", action="store_true", help="leave the measurements of speed out")
    parser.add_argument("--brief", action="store_true", help="print warnings, failures and the summary only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there too")


def run(arguments: Namespace) -> int:
    """Print one line for each finding as it comes, then the summary; 2 when something failed."""
    told = ("warning", "FAIL") if arguments.brief else get_args(State)
    host = socket.gethostname()
    config = load_config(arguments.config, arguments.overrides) if arguments.config else None
    if not arguments.brief:
        print(f"{host}: preflight{f' for {config.name}' if config else ''}", flush=True)
    findings = []
    for finding in _found(config, arguments):
        if finding.state in told:
            print(line(finding), flush=True)
        findings.append(finding)
    print(summary(host, findings), flush=True)
    if arguments.json:
        write_json(arguments.json, host, findings)
    return 0 if is_fit(findings) else UserError.exit_status


def _found(config: RunConfig | None, arguments: Namespace) -> Iterator[Finding]:
    try:
        prepare_environment(Launch(rank=0, local_rank=0, world_size=1))
    except UserError as error:  # a GPU that torch cannot use; there is more to look at
        yield from (broken("GPUs", problem) for problem in error.problems)
    from glm130b.preflight.checks import examine  # imports torch, which reads the environment

    yield from examine(config, world_size=arguments.world_size, expected_gpus=arguments.gpus, quick=arguments.quick)
