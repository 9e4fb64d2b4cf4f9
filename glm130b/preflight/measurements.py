"""Speed of this machine, measured by one process for each GPU: matrix products, and all-reduces between them."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from torch.distributed import TCPStore

from glm130b.config.hardware import Accelerator, recognised
from glm130b.preflight.accelerators import NO_GPU
from glm130b.preflight.finding import Finding, at_least, failed, ok, skipped
from glm130b.preflight.site import Site
from glm130b.preflight.trial import Outcome

_CPU_PROCESSES = 2
_SECONDS = 120.0
_GOOD_SHARE, _LEAST_SHARE = 0.55, 0.35
"""Of the vendor's peak that large matrix products reach: 0.7 to 0.9 in health."""
_GOOD_BUS, _LEAST_BUS = 0.6, 0.2
"""Of the node bandwidth: 0.75 and more in health; over PCIe, when the faster links are not used, less than 0.1."""
_BEHIND, _FAR_BEHIND = 0.9, 0.75
"""Of the median GPU's pace."""
_GPU_MEND = "look at heat, power and clocks of the GPU, or leave this machine out"


def speed(site: Site) -> Iterator[Finding]:
    """Start the processes and judge what they measured."""
    count = site.num_gpus or _CPU_PROCESSES
    try:
        outcomes = run_trials(count, device="cuda" if site.num_gpus else "cpu", seconds=_SECONDS)
    except TimeoutError as error:
        yield failed("speed", str(error), "look at the GPUs and links above, and at what else runs here")
        return
    if not site.num_gpus:
        yield skipped("GPU speed", NO_GPU)
        paces = " and ".join(f"{outcome.flops / 1e9:.0f}" for outcome in outcomes)
        yield ok("CPU speed", f"{paces} GFLOP/s in {outcomes[0].dtype}, one core each, at the same time")
    else:
        yield from products_of(outcomes)
    yield bandwidth_of(outcomes)


def run_trials(count: int, *, device: str, seconds: float) -> list[Outcome]:
    """By rank, what ``trial.py`` measured. Raises OSError with the last words of one that failed, and TimeoutError
    when not all have answered after ``seconds``; no process outlives the call."""
    # The port is the system's choice, and nobody can take it before the processes come.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory(prefix="preflight-") as folder:
        logs = [Path(folder) / f"{rank}.log" for rank in range(count)]
        answers = [Path(folder) / f"{rank}.json" for rank in range(count)]
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank, (log, answer) in enumerate(zip(logs, answers, strict=True)):
                words = f"--rank {rank} --world {count} --port {store.port} --device {device} --answer".split()
                with log.open("wb") as output:
                    command = [sys.executable, "-m", "glm130b.preflight.trial", *words, str(answer)]
                    processes.append(subprocess.Popen(command, stdout=output, stderr=output))
            _wait(processes, logs, seconds)
            return [Outcome(**json.loads(answer.read_text(encoding="utf-8"))) for answer in answers]
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                with suppress(subprocess.TimeoutExpired):  # the driver may not let go of it
                    process.wait(5)


def _wait(processes: Sequence["subprocess.Popen[bytes]"], logs: Sequence[Path], seconds: float) -> None:
    """Until all have ended well."""
    deadline = time.monotonic() + seconds
    while None in (statuses := [process.poll() for process in processes]) or any(statuses):
        for rank, status in enumerate(statuses):
            if status:
                words = logs[rank].read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise OSError(f"process {rank} of the measurement: {words[-1] if words else f'status {status}'}")
        if time.monotonic() > deadline:
            hung = ", ".join(str(rank) for rank, status in enumerate(statuses) if status is None)
            raise TimeoutError(f"process {hung} of the measurement has not answered after {seconds:.0f} s")
        time.sleep(0.05)


def products_of(outcomes: Sequence[Outcome]) -> Iterator[Finding]:
    """The slowest GPU against the peak of its kind and against the others, and clocks under load."""
    paces = [outcome.flops for outcome in outcomes]
    slowest, dtype = min(range(len(paces)), key=paces.__getitem__), outcomes[0].dtype
    value = f"{min(paces) / 1e12:.0f} to {max(paces) / 1e12:.0f} TFLOP/s in {dtype}"
    if kind := _kind(outcomes[slowest]):
        share = min(paces) / kind.peak_half
        value += f", {share:.0%} of the peak at least (GPU {slowest})"
        yield at_least("GPU speed", value, share, wanted=_GOOD_SHARE, needed=_LEAST_SHARE, mend=_GPU_MEND)
    else:
        yield ok("GPU speed", f"{value}; no peak of {outcomes[slowest].device} is known")
    middle = statistics.median(paces)
    behind = [f"GPU {rank} {pace / middle:.0%}" for rank, pace in enumerate(paces) if pace < _BEHIND * middle]
    if behind:
        value = f"of the median: {', '.join(behind)}"
        yield at_least("GPU pace", value, min(paces) / middle, wanted=_BEHIND, needed=_FAR_BEHIND, mend=_GPU_MEND)
    first = outcomes[0]
    if first.slowed:
        yield failed("GPU load", ", ".join(first.slowed), _GPU_MEND)
    elif first.clocks:
        yield ok("GPU load", f"{', '.join(dict.fromkeys(f'{now}/{highest}' for now, highest in first.clocks))} MHz")


def bandwidth_of(outcomes: Sequence[Outcome]) -> Finding:
    """The slowest process's bus bandwidth against what the GPU's links carry."""
    measured = [outcome.bus_bandwidth for outcome in outcomes if outcome.bus_bandwidth is not None]
    if not measured:
        return skipped("all-reduce", "one GPU")
    slowest = min(measured)
    value = f"{slowest / 1e9:.1f} GB/s bus bandwidth over {len(outcomes)} processes"
    if outcomes[0].device == "cpu":
        return ok("all-reduce", f"{value}, gloo")
    if (kind := _kind(outcomes[0])) is None:
        return ok("all-reduce", f"{value}; no node bandwidth of {outcomes[0].device} is known")
    value += f", {slowest / kind.node_bandwidth:.0%} of the {kind.node_bandwidth / 1e9:.0f} GB/s of a GPU's links"
    mend = "look at NVLink, the fabric manager and NCCL_DEBUG=INFO, or leave this machine out"
    return at_least(
        "all-reduce",
        value,
        slowest,
        wanted=_GOOD_BUS * kind.node_bandwidth,
        needed=_LEAST_BUS * kind.node_bandwidth,
        mend=mend,
    )


def _kind(outcome: Outcome) -> Accelerator | None:
    return recognised(outcome.device, outcome.memory_bytes)
