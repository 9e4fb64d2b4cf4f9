"""GPUs as their driver shows them at rest, and the links that they talk through."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from glm130b.preflight.finding import Finding, at_least, failed, ok, skipped, warning
from glm130b.preflight.nvidia import Gpu, RemappedRows, read_gpus, read_links, read_remapped_rows
from glm130b.preflight.site import Site

NO_GPU = "no GPU that torch can use; the run trains on the CPU"
_TOO_FEW = "reboot this machine, leave it out, or start as many processes on it as it has GPUs"
_GIB = 2**30
_WARM, _HOT = 75, 88
"""Degrees Celsius at rest; GPUs slow down from about 90 on."""
_INFINIBAND = Path("/sys/class/infiniband")


def gpus(site: Site) -> Iterator[Finding]:
    if not site.num_gpus:
        none = f"torch can use none of {site.expected_gpus}"
        yield failed("GPUs", none, _TOO_FEW) if site.expected_gpus else skipped("GPUs", NO_GPU)
        return
    found = read_gpus()
    yield ok("driver", f"{found[0].driver}, CUDA {torch.version.cuda}, NCCL {nccl_version()}")
    yield from number_of(found, site.num_gpus, num_expected=site.expected_gpus)
    yield from state_of(found)
    yield from rows_of(read_remapped_rows())


def number_of(found: Sequence[Gpu], num_usable: int, *, num_expected: int = 0) -> Iterator[Finding]:
    """All are of one kind, torch can use all of them, and they are as many as the job expects."""
    names = sorted({f"{gpu.name} {gpu.memory_bytes / _GIB:.0f} GiB" for gpu in found})
    value = f"{len(found)} x {', '.join(names)}"
    if num_usable < num_expected:
        yield failed("GPUs", f"{value}, torch can use {num_usable} of {num_expected}", _TOO_FEW)
    elif len(names) > 1:
        yield warning("GPUs", value, "all others wait for the slowest: use machines of one kind")
    elif len(found) != num_usable:
        yield warning("GPUs", f"{value}, torch sees {num_usable}", "look at CUDA_VISIBLE_DEVICES")
    else:
        yield ok("GPUs", value)


def state_of(found: Sequence[Gpu]) -> Iterator[Finding]:
    """Free memory, heat, clocks and ECC errors: one line each, the worst GPUs named when there is something to say."""
    yield _free_memory(found)
    temperatures = {gpu.index: gpu.temperature for gpu in found if gpu.temperature is not None}
    if temperatures:
        hottest = max(temperatures, key=lambda index: temperatures[index])
        degrees = temperatures[hottest]
        value = f"{degrees} C at most (GPU {hottest})"
        yield at_least("GPU heat", value, -degrees, wanted=-_WARM, needed=-_HOT, mend="look at fans and air flow")
    slowed = [f"GPU {gpu.index} {reason}" for gpu in found for reason in gpu.slowed_by]
    clocks = [f"{gpu.clock}/{gpu.highest_clock}" for gpu in found]
    if slowed:
        yield failed("GPU clocks", ", ".join(slowed), "cool or power it, reset it, or leave this machine out")
    else:
        yield ok("GPU clocks", f"{', '.join(dict.fromkeys(clocks))} MHz at rest")
    yield _memory_errors(found)


def _free_memory(found: Sequence[Gpu]) -> Finding:
    taken = [gpu for gpu in found if gpu.free_bytes < 0.9 * gpu.memory_bytes]
    if not taken:
        return ok("GPU memory", f"{min(gpu.free_bytes for gpu in found) / _GIB:.1f} GiB free at least")
    value = ", ".join(f"GPU {gpu.index} {gpu.free_bytes / _GIB:.1f} GiB free" for gpu in taken)
    return failed("GPU memory", value, "end the processes that `nvidia-smi` lists there")


def _memory_errors(found: Sequence[Gpu]) -> Finding:
    """An error since the driver was loaded may have struck what lies there now; an old one has been dealt with."""
    now = [f"GPU {gpu.index} {gpu.errors_since_reset}" for gpu in found if gpu.errors_since_reset]
    ever = [f"GPU {gpu.index} {gpu.errors_ever}" for gpu in found if gpu.errors_ever]
    if now:
        return failed("GPU ECC", f"uncorrected errors: {', '.join(now)}", "reset the GPU, or leave this machine out")
    if ever:
        return warning("GPU ECC", f"uncorrected errors in its life: {', '.join(ever)}", "replace it if they grow")
    if all(gpu.errors_since_reset is None for gpu in found):
        return skipped("GPU ECC", "these GPUs do not count memory errors")
    return ok("GPU ECC", "no uncorrected error")


def rows_of(remapped: Sequence[RemappedRows]) -> Iterator[Finding]:
    """A row that waits for its replacement, or has none, gives wrong values or ends the run."""
    pending = [f"GPU {index}" for index, rows in enumerate(remapped) if rows.pending]
    spent = [f"GPU {index}" for index, rows in enumerate(remapped) if rows.failure]
    if pending:
        yield failed("GPU rows", f"a bad memory row waits for a reset: {', '.join(pending)}", "reset the GPU")
    if spent:
        yield failed("GPU rows", f"no spare memory row is left: {', '.join(spent)}", "replace the GPU")
    if remapped and not pending and not spent:
        yield ok("GPU rows", "no memory row waits to be replaced")


def links(site: Site) -> Iterator[Finding]:
    """NVLink between the GPUs of this machine, InfiniBand to others."""
    if site.num_gpus:
        yield from nvlinks_of(read_links())
    yield infiniband_in(_INFINIBAND, needs_network=bool(site.num_gpus) and site.job_size > site.num_gpus)


def nvlinks_of(found: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """All GPUs have the same number of links in use."""
    active = [sum("inactive" not in link for link in links) for links in found]
    if len(found) < 2:
        yield skipped("NVLink", "one GPU")
    elif not any(active):
        yield warning("NVLink", "none", "without it tensor parallelism is slow; keep parallel.tensor at 1")
    elif len(set(active)) > 1:
        lacking = [f"GPU {index} {count}" for index, count in enumerate(active) if count < max(active)]
        value = f"{', '.join(lacking)} active links, the others {max(active)}"
        yield failed("NVLink", value, "reset the GPUs and the fabric manager, or leave this machine out")
    else:
        speed = next(link for links in found for link in links if "inactive" not in link)
        yield ok("NVLink", f"{active[0]} links of {speed} on every GPU")


def infiniband_in(folder: Path, *, needs_network: bool) -> Finding:
    """Ports as the kernel shows them: DEVICE/ports/N/state says ``4: ACTIVE``, .../rate ``200 Gb/sec (4X HDR)``, and
    .../link_layer ``InfiniBand``, or ``Ethernet`` of an adapter in that mode, which is none of these."""
    found = [file.parent for file in sorted(folder.glob("*/ports/*/link_layer")) if _said(file) == "InfiniBand"]
    ports = {port: _said(port / "state") for port in found}
    up = [port for port, state in ports.items() if state.endswith("ACTIVE")]
    down = [f"{port.parents[1].name}/{port.name}" for port in ports if port not in up]
    mend = "look at cables and drivers (ibstat), or leave this machine out"
    if not up:
        value = f"no active port of {len(ports)}" if ports else "none"
        return warning("InfiniBand", value, mend) if needs_network or ports else skipped("InfiniBand", value)
    rates = sorted({_said(port / "rate") for port in up})
    value = f"{len(up)} active port{'s' * (len(up) > 1)} of {' and '.join(rates)}"
    if down:
        return warning("InfiniBand", f"{value}, down: {', '.join(down)}", mend)
    return ok("InfiniBand", value)


def _said(file: Path) -> str:
    return file.read_text(encoding="ascii").strip()


def nccl_version() -> str | None:
    """Of the NCCL that torch was built with, such as ``2.27.5``; None without one."""
    if not torch.cuda.is_available():
        return None
    version = torch.cuda.nccl.version()
    return ".".join(map(str, version)) if isinstance(version, tuple) else str(version)
