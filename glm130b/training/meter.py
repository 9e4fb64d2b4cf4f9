"""Measures a step: every process its own part, told to all in one collective behind the backward pass."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from glm130b.config.sections import RunConfig
from glm130b.data.loader import Loader
from glm130b.model.activation_scale import ActivationScale
from glm130b.parallel.topology import Topology
from glm130b.training.memory_use import MemoryUse
from glm130b.training.objective_loss import LossSums, RowLosses, spoken_for
from glm130b.training.tally import add_up
from glm130b.training.throughput import Throughput, peak_flops


@dataclass(frozen=True)
class Measured:
    """What all processes know of a step before its update; the same on every rank."""

    losses: Mapping[str, float]
    """``loss``, and that of each objective and source that had rows."""
    others: Mapping[str, float]
    """Times and memory of the ranks, scales of the layers."""
    labels: Mapping[str, str]


class Meter:
    """Begins with a step, is read when its forward and backward are done, and once more when it is over."""

    def __init__(
        self,
        config: RunConfig,
        *,
        loader: Loader,
        topology: Topology,
        hosts: Sequence[str],
        activation_scale: ActivationScale | None = None,
    ) -> None:
        """``hosts`` are the names of the processes' machines, by rank."""
        self._loader, self._topology, self._hosts = loader, topology, hosts
        self._losses = LossSums(config)
        self._activation_scale = activation_scale
        self._memory = MemoryUse(topology.device)
        self._throughput = Throughput(
            config, world_size=topology.world_size, peak_flops=peak_flops(config, topology.device)
        )
        self._began = self._waited = 0.0

    def begin(self) -> None:
        """The step begins now."""
        self._began, self._waited = time.perf_counter(), self._loader.seconds_waited

    def after_backward(self, reports: Sequence[RowLosses]) -> Measured:
        """``reports`` are the pipeline's. One collective over the whole job."""
        self._wait_for_device()  # the collective would, a moment later; only now is the time this rank's own
        own = [time.perf_counter() - self._began, self._loader.seconds_waited - self._waited, *self._memory.read()]
        losses = self._losses.of(spoken_for(reports, self._topology))
        scale = self._activation_scale
        sums, by_rank = add_up([*losses, *(scale.take() if scale else ())], own, self._topology)
        seconds_W, waits_W, *memory_MW = zip(*by_rank, strict=True)
        memory = {name: max(peaks_W) for name, peaks_W in zip(self._memory.names, memory_MW, strict=True)}
        return Measured(
            losses=self._losses.means(sums[: len(losses)]),
            others=rank_times(seconds_W)
            | {"data_wait_seconds": max(waits_W)}
            | memory
            | (scale.values(sums[len(losses) :]) if scale else {}),
            labels={"slowest_host": self._hosts[slowest(seconds_W)]},
        )

    def speed(self, batch_size: int) -> dict[str, float]:
        """Of the step that is now over, and had so many rows; by this rank's clock, the whole update included."""
        self._wait_for_device()  # the roll call would, before the next step begins
        return self._throughput.values(batch_size=batch_size, seconds=time.perf_counter() - self._began)

    def _wait_for_device(self) -> None:
        """Until what this process has asked of its GPU is done."""
        if self._topology.device.type == "cuda":
            torch.cuda.current_stream(self._topology.device).synchronize()


def rank_times(seconds_W: Sequence[float]) -> dict[str, float]:
    """Of the seconds that each rank took to the end of its forward and backward.

    A rank that waits for others inside its replica, in tensor parallelism and in the pipeline, is as late as they are:
    what differs is replicas, and the stages of one. Which rank of a replica is slow by itself tells ``pace.Pace``.
    """
    extremes = {"min": min(seconds_W), "median": median(seconds_W), "max": max(seconds_W)}
    return {f"rank_seconds/{name}": seconds for name, seconds in extremes.items()} | {
        "slowest_rank": slowest(seconds_W)
    }


def slowest(seconds_W: Sequence[float]) -> int:
    """The rank that took longest, of equals the first."""
    return max(range(len(seconds_W)), key=lambda rank: seconds_W[rank])
