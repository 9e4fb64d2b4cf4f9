"""The machine around its GPUs: cores, memory, limits of the operating system."""

import os
import platform
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from glm130b.preflight.finding import Finding, at_least, ok, skipped
from glm130b.preflight.site import Site

GIB = 2**30
_OPEN_FILES = 4096
_OPEN_FILES_PER_PROCESS = 8
"""On the first machine: every process of the job holds some connections to it."""
_SHARED_MEMORY = Path("/dev/shm")


def cores(site: Site) -> Iterator[Finding]:
    """Every process needs one, and on a machine with GPUs as many more as its data workers."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    value = f"{usable} of {os.cpu_count()}, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    wanted = site.num_gpus * (1 + site.config.data.workers if site.config else 1)
    mend = f"give this machine's processes {wanted} cores, or lower data.workers"
    yield at_least("cores", value, usable, wanted=wanted, needed=site.num_gpus, mend=mend)


def host_memory(site: Site) -> Iterator[Finding]:
    """Room for the copy that an asynchronous checkpoint is written from, and for an optimizer that is kept there."""
    memory = _meminfo()
    if memory is None:
        yield skipped("host memory", "this system has no /proc/meminfo")
        return
    copies = site.config.checkpoint.asynchronous + site.config.parallel.offload_optimizer if site.config else 0
    needed = copies * site.checkpoint_share_bytes
    free, total = memory["MemAvailable"], memory["MemTotal"]
    value = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if needed:
        value += f", {needed / GIB:.1f} GiB needed for {site.num_processes} process{'es' * (site.num_processes > 1)}"
    mend = "end what else runs here, or set checkpoint.asynchronous=false"
    yield at_least("host memory", value, free, wanted=max(needed, total // 10), needed=needed, mend=mend)


def shared_memory(site: Site) -> Iterator[Finding]:
    """NCCL's processes of one machine talk through /dev/shm; a container's default of 64 MiB is too little."""
    if not _SHARED_MEMORY.is_dir():
        yield skipped("shared memory", f"this system has no {_SHARED_MEMORY}")
        return
    usage = shutil.disk_usage(_SHARED_MEMORY)
    value = f"{usage.free / GIB:.2f} of {usage.total / GIB:.2f} GiB free in {_SHARED_MEMORY}"
    mend = "start the container with --shm-size 8g or --ipc host"
    yield at_least(
        "shared memory", value, usage.free, wanted=GIB / 2, needed=GIB / 2 if site.num_gpus > 1 else 0, mend=mend
    )


def open_files(site: Site) -> Iterator[Finding]:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = limit == resource.RLIM_INFINITY
    wanted = max(_OPEN_FILES, _OPEN_FILES_PER_PROCESS * site.job_size)
    mend = f"ulimit -n {wanted}"
    yield at_least(
        "open files",
        "no limit" if unlimited else f"{limit} at most",
        float("inf") if unlimited else limit,
        wanted=wanted,
        needed=1024,
        mend=mend,
    )


def system(site: Site) -> Iterator[Finding]:
    del site
    yield ok("system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}")


def free_host_bytes() -> int | None:
    """Memory that new processes could have; None where the system does not tell."""
    memory = _meminfo()
    return memory["MemAvailable"] if memory else None


def _meminfo() -> dict[str, int] | None:
    """/proc/meminfo in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
