"""The list of checks. A further one is a further function here."""

from collections.abc import Callable, Iterator

import torch

from glm130b.config.sections import RunConfig
from glm130b.preflight.accelerators import gpus, links
from glm130b.preflight.disk import clock, disk_speed, room
from glm130b.preflight.finding import Finding, failed
from glm130b.preflight.libraries import library_imports, library_versions
from glm130b.preflight.machine import cores, host_memory, open_files, shared_memory, system
from glm130b.preflight.measurements import speed
from glm130b.preflight.run_files import checkpoints, config_fits, files
from glm130b.preflight.site import Site

Check = Callable[[Site], Iterator[Finding]]
"""Yields what it finds. An OSError or RuntimeError that it lets pass is a failure with the function's name."""

LOOKS: tuple[Check, ...] = (
    system,
    library_versions,
    cores,
    host_memory,
    shared_memory,
    open_files,
    gpus,
    links,
    config_fits,
    files,
    checkpoints,
    clock,
    room,
)
"""What is there: each takes well under a second."""

MEASUREMENTS: tuple[Check, ...] = (library_imports, disk_speed, speed)
"""How fast it is: seconds each."""


def examine(config: RunConfig | None, *, world_size: int | None, expected_gpus: int, quick: bool) -> Iterator[Finding]:
    """What every check finds, as it is found. The environment has been prepared."""
    site = Site(torch.cuda.device_count(), config, world_size, expected_gpus)
    for check in LOOKS if quick else (*LOOKS, *MEASUREMENTS):
        try:
            yield from check(site)
        except (OSError, RuntimeError) as error:  # what the system, or torch with a broken GPU, raises
            yield failed(check.__name__.replace("_", " "), str(error), "mend this machine, or leave it out")
