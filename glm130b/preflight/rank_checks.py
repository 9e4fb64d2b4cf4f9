"""Every rank tells what it is at the start of a run, all compare, and the odd one out is named.

What ends the run, with the same ``UserError`` on every rank: another config, source, version of a library that
computes (torch, CUDA, NCCL, Megatron-core, DeepSpeed), tokenizer or corpus. Such a rank would do other arithmetic, read
other rows or wait for other messages, and nothing later would say so: the losses are just wrong, or the job hangs.

What only warns: another GPU, one with other limits or in trouble, another driver, kernel or Python, other settings of
libraries in the environment, much less free memory than the others, a clock that is off. The numbers stay right: a
slower or smaller GPU slows all others down or runs out of memory, in the first step and with a message of its own;
network settings may differ for good reasons; and all waiting is measured with each process's own monotonic clock, so a
clock that is off only misleads who reads logs.
"""

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.config.wording import rank_spans
from glm130b.parallel.agreement import shown_by_all, told_by_all
from glm130b.parallel.topology import Topology
from glm130b.preflight.rank_facts import Facts, settings_of

_LITTLE_MEMORY = 0.5
"""Of the ranks' median."""
_CLOCK_SECONDS = 5.0
_MOST_RANKS, _MOST_HOSTS, _MOST_VALUES = 40, 3, 3
"""What a message names at most: characters of ranks, hosts, values of one thing."""
_MEND = "let all machines see the same files and the same installation, or leave the odd one out"


def compare_ranks(facts: Facts, config: RunConfig, topology: Topology) -> list[str]:
    """Warnings, the same on every rank. Collective, a few KB from each.

    Raises ``UserError``, on all ranks alike, with every difference that ends the run.
    """
    told = shown_by_all(facts, topology)
    clocks = told_by_all([time.time()], topology)[:, 0].tolist()  # all have just come out of the same collective
    found = list(differences(told))
    if len({one.config for one in told}) > 1:
        settings = shown_by_all(settings_of(config), topology)
        found += odd_ones([one.host for one in told], settings)
    if found:
        raise UserError([f"{difference}; {_MEND}" for difference in found])
    return [*doubts(told), *clocks_off([one.host for one in told], clocks)]


def differences(told: Sequence[Facts]) -> Iterator[str]:
    """What ends the run, beside the config; ``told`` by rank."""
    return odd_ones([one.host for one in told], [one.must_agree for one in told])


def doubts(told: Sequence[Facts]) -> Iterator[str]:
    """What only warns, beside the clocks; ``told`` by rank."""
    hosts = [one.host for one in told]
    yield from odd_ones(hosts, [one.should_agree for one in told])
    for trouble in dict.fromkeys(trouble for one in told for trouble in one.troubles):
        yield f"{_who([rank for rank, one in enumerate(told) if trouble in one.troubles], hosts)}: GPU: {trouble}"
    for kind in dict.fromkeys(kind for one in told for kind in one.free):
        free = {rank: one.free[kind] for rank, one in enumerate(told) if kind in one.free}
        middle = statistics.median(free.values())
        if low := [rank for rank, amount in free.items() if amount < _LITTLE_MEMORY * middle]:
            least = min(free[rank] for rank in low)
            yield f"{_who(low, hosts)}: {_gib(least)} of {kind} free, the median is {_gib(middle)}"


def clocks_off(hosts: Sequence[str], clocks: Sequence[float]) -> Iterator[str]:
    """Both by rank; ``clocks`` in seconds, read at the same moment."""
    middle = statistics.median_low(clocks)
    if off := [rank for rank, clock in enumerate(clocks) if abs(clock - middle) > _CLOCK_SECONDS]:
        farthest = max((clocks[rank] - middle for rank in off), key=abs)
        direction = "ahead of" if farthest > 0 else "behind"
        yield f"{_who(off, hosts)}: clock {abs(farthest):.0f} s {direction} the others'"


def odd_ones(hosts: Sequence[str], told: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """For each name who has another value than most, in words; both arguments by rank.

    Most is decided by count; of two values that are told equally often, the one that the lowest rank has counts.

    >>> list(odd_ones(["a", "b", "c"], [{"torch": "2.13.0"}, {"torch": "2.12.0"}, {"torch": "2.13.0"}]))
    ['rank 1 on b: torch 2.12.0, all others 2.13.0']
    """
    for name in dict.fromkeys(name for one in told for name in one):
        values = [one.get(name, "not set") for one in told]
        (usual, count), *others = Counter(values).most_common()
        majority = "all others" if len(others) == 1 else f"{count} others"
        for value, _ in others[:_MOST_VALUES]:
            ranks = [rank for rank, it in enumerate(values) if it == value]
            yield f"{_who(ranks, hosts)}: {name} {value}, {majority} {usual}"
        if rest := others[_MOST_VALUES:]:
            yield f"{sum(number for _, number in rest)} ranks more: {name} of {len(rest)} further values"


def _who(ranks: Sequence[int], hosts: Sequence[str]) -> str:
    """Ranks and their machines in words that stay short.

    >>> _who([8, 9], ["node-000"] * 8 + ["node-001"] * 8)
    'ranks 8-9 on node-001'
    """
    named = rank_spans(ranks)
    if len(named) > _MOST_RANKS:
        named = f"{len(ranks)} ranks, the first rank {ranks[0]},"
    machines = list(dict.fromkeys(hosts[rank] for rank in ranks))
    more = f" and {len(machines) - _MOST_HOSTS} more" if len(machines) > _MOST_HOSTS else ""
    return f"{named} on {', '.join(machines[:_MOST_HOSTS])}{more}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
