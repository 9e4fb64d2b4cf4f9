"""What the driver says of this machine's GPUs: `nvidia-smi`, asked for CSV, and the links between them."""

import csv
from dataclasses import dataclass

from glm130b.preflight.program import answer

_SECONDS = 60
"""A driver that is stuck answers after minutes, or never."""
_MIB = 2**20

FIELDS = (
    "index",
    "name",
    "driver_version",
    "ecc.mode.current",
    "memory.total",
    "memory.free",
    "temperature.gpu",
    "clocks.sm",
    "clocks.max.sm",
    "power.limit",
    "ecc.errors.uncorrected.volatile.total",
    "ecc.errors.uncorrected.aggregate.total",
)
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""The new name, and the one that drivers before 535 know; a mask of bits."""
_SLOW_BITS = {
    0x08: "hardware slowdown",
    0x20: "slowed down by heat (driver)",
    0x40: "slowed down by heat (hardware)",
    0x80: "slowed down by the power supply",
}
"""Bits that say that the hardware is in trouble (NVML: nvmlClocksEventReasons). Idleness and the power cap are not."""


@dataclass(frozen=True)
class Gpu:
    """One line of `nvidia-smi`; None for what the GPU or its driver does not tell."""

    index: int
    name: str
    driver: str
    ecc_mode: str
    """``Enabled``, ``Disabled`` or ``[N/A]``."""
    memory_bytes: int
    free_bytes: int
    temperature: int | None
    """Degrees Celsius."""
    clock: int | None
    """MHz, now; low on an idle GPU."""
    highest_clock: int | None
    power_limit: int | None
    """W."""
    errors_since_reset: int | None
    """ECC errors that were not corrected, since the driver was loaded."""
    errors_ever: int | None
    reasons: int = 0
    """Why its clock is not higher, as NVML's mask of bits."""

    @property
    def slowed_by(self) -> list[str]:
        """Trouble of the hardware that lowers its clock, in words."""
        return [words for bit, words in _SLOW_BITS.items() if self.reasons & bit]

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is wrong with the hardware now, in words."""
        errors = self.errors_since_reset
        return (*self.slowed_by, *([f"uncorrected ECC errors since its reset: {errors}"] if errors else []))


@dataclass(frozen=True)
class RemappedRows:
    """Memory rows of one GPU that were replaced by spare ones."""

    pending: bool
    """A row will be replaced at the next reset."""
    failure: bool
    """There was no spare row left."""


def read_gpus(*ids: str, seconds: float = _SECONDS) -> list[Gpu]:
    """Those of these UUIDs, or all GPUs of the machine. Raises OSError when there is no `nvidia-smi`, or no answer
    within ``seconds``."""
    chosen = [f"--id={','.join(ids)}"] if ids else []
    for fields in (*((*FIELDS, reasons) for reasons in REASONS), FIELDS):
        query = [f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", *chosen]
        try:
            return parse_gpus(_answer(*query, seconds=seconds))
        except ValueError as error:  # a driver that does not know a field, or a GPU that gives no numbers
            problem = error
    raise OSError(f"nvidia-smi: {problem}")


def read_remapped_rows() -> list[RemappedRows]:
    """By GPU; empty where there are none (before A100). Raises OSError as ``read_gpus``."""
    query = "--query-remapped-rows=remapped_rows.pending,remapped_rows.failure"
    try:
        return parse_remapped_rows(_answer(query, "--format=csv,noheader"))
    except ValueError:
        return []


def read_links() -> list[list[str]]:
    """The state of every NVLink, by GPU: its speed, or ``<inactive>``. Raises OSError as ``read_gpus``."""
    try:
        return parse_links(_answer("nvlink", "--status"))
    except ValueError:
        return []


def parse_gpus(text: str) -> list[Gpu]:
    """One GPU a line, values in the order of ``FIELDS``, then perhaps the reasons. Raises ValueError."""
    gpus = []
    for row in csv.reader(text.strip().splitlines(), skipinitialspace=True):
        index, name, driver, ecc_mode, total, free, *numbers = row
        temperature, clock, highest_clock, power_limit, since_reset, ever, *reasons = map(_number, numbers)
        gpu = Gpu(
            index=int(index),
            name=name,
            driver=driver,
            ecc_mode=ecc_mode,
            memory_bytes=int(total) * _MIB,
            free_bytes=int(free) * _MIB,
            temperature=temperature,
            clock=clock,
            highest_clock=highest_clock,
            power_limit=power_limit,
            errors_since_reset=since_reset,
            errors_ever=ever,
            reasons=next(iter(reasons), None) or 0,
        )
        gpus.append(gpu)
    return gpus


def parse_remapped_rows(text: str) -> list[RemappedRows]:
    rows = csv.reader(text.strip().splitlines(), skipinitialspace=True)
    return [RemappedRows(*(value.lower() in ("1", "yes") for value in row)) for row in rows if len(row) == 2]


def parse_links(text: str) -> list[list[str]]:
    """From `nvidia-smi nvlink --status`: a line for each GPU, then one, indented, for each of its links."""
    gpus: list[list[str]] = []
    for line in text.splitlines():
        head, _, rest = line.strip().partition(":")
        if head.startswith("GPU "):
            gpus.append([])
        elif head.startswith("Link ") and gpus:
            gpus[-1].append(rest.strip())
    return gpus


def _number(text: str) -> int | None:
    """Decimal and rounded, or hexadecimal after 0x; None for ``[N/A]`` and its like."""
    if text.startswith("[") or text == "N/A":
        return None
    return int(text, 16) if text.startswith("0x") else round(float(text))


def _answer(*words: str, seconds: float = _SECONDS) -> str:
    """What `nvidia-smi` prints. Raises ValueError for a question that it does not know, OSError for all else."""
    done = answer(["nvidia-smi", *words], seconds=seconds)
    if done.returncode == 2 or "not a valid" in done.stdout:
        raise ValueError(done.stdout.strip())
    if done.returncode:
        raise OSError(f"nvidia-smi: {(done.stdout + done.stderr).strip() or f'status {done.returncode}'}")
    return done.stdout
