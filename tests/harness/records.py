"""What a record says of the run, without what it says of the machine it ran on."""

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

_SPEED = ("samples_per_second", "tokens_per_second", "teraflops_per_gpu", "mfu", "hfu")
_MACHINE = ("time", "seconds", "data_wait_seconds", "slowest_rank", "slowest_host", *_SPEED)


def without_machine(numbers: Mapping[str, Value]) -> dict[str, Value]:
    """Without times, speeds and memory: equal for equal runs."""
    return {name: value for name, value in numbers.items() if not _is_of_the_machine(name)}


def _is_of_the_machine(name: str) -> bool:
    return name in _MACHINE or name.startswith(("rank_seconds/", "memory_"))
