"""``--search``: every layout that the rules accept, those that fit the GPUs, the fastest first."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from glm130b.config import derived
from glm130b.config.layout_rules import layout_problems
from glm130b.config.rules import check
from glm130b.config.sections import RunConfig
from glm130b.plan.cluster import Cluster
from glm130b.plan.kernels import gpu_kernels
from glm130b.plan.memory import TIGHT, memory_per_stage
from glm130b.plan.step_time import StepModel

_MICRO_SIZES = (1, 2, 4, 8, 16)
_RECOMPUTES: tuple[Literal["none", "selective", "full"], ...] = ("none", "selective", "full")


class Grid(NamedTuple):
    """Tensor x pipeline x data."""

    tensor: int
    pipeline: int
    data: int


@dataclass(frozen=True)
class Candidate:
    """A layout that runs."""

    config: RunConfig
    grid: Grid
    seconds: float
    """Of a full step."""
    memory_bytes: int
    """Of the fullest GPU."""
    memory_share: float
    """The same, of what the GPU has."""
    model_utilization: float

    @property
    def is_tight(self) -> bool:
        return self.memory_share > TIGHT

    def overrides(self, original: RunConfig) -> list[str]:
        """What turns ``original`` into this, as words of a command line."""
        return [
            f"{section}.{key}={str(value).lower()}"
            for section in ("parallel", "batch")
            for key, value in getattr(self.config, section)
            if value != getattr(getattr(original, section), key)
        ]


@dataclass
class Found:
    """What a search saw."""

    num_tried: int = 0
    num_fitting: int = 0
    best: list[Candidate] = field(default_factory=list)
    """The fastest layout of each grid, the fastest first; tight ones stand behind all others."""
    num_too_large: int = 0
    """Legal, but too large for the GPUs' memory."""
    as_it_is: Candidate | None = None
    """The config itself, where it is for as many GPUs, whether it fits or not."""
    broken_rules: Counter[str] = field(default_factory=Counter)
    """Layouts by the key whose rule they broke first."""

    def keep(self, candidate: Candidate) -> None:
        self.num_fitting += 1
        rivals = [other for other in self.best if other.grid == candidate.grid]
        if all(_rank(candidate) < _rank(other) for other in rivals):
            self.best = [*(other for other in self.best if other.grid != candidate.grid), candidate]


def search(config: RunConfig, cluster: Cluster, *, world_size: int) -> Found:
    """Tensor x pipeline x data x how layers are dealt out x virtual stages x sequence parallel x recomputation x
    micro-batch size x ZeRO stage, over all of ``world_size`` GPUs; everything else is as the config says.

    The config's own layout may break rules. Raises UserError with the rules that no layout would keep.
    """
    check(_plainest(_laid_out(config, tensor=1, pipeline=1, data=1)))
    found = Found()
    for grid in _grids(world_size):
        for dealt in _dealt(config, grid):
            for legal in _legal(dealt, world_size, found):
                _try_recomputations(legal, grid, cluster, found)
    if not any(layout_problems(config, world_size)):
        data_size = derived.data_parallel_size(config, world_size)
        own = Grid(config.parallel.tensor, config.parallel.pipeline, data_size)
        found.as_it_is = _timed(config, own, cluster, _fullest(config, own, cluster))
    found.best.sort(key=_rank)
    return found


def _rank(candidate: Candidate) -> tuple[bool, float, int]:
    return candidate.is_tight, candidate.seconds, candidate.memory_bytes


def _grids(world_size: int) -> Iterator[Grid]:
    divisors = [size for size in range(1, world_size + 1) if world_size % size == 0]
    for tensor in divisors:
        for pipeline in divisors:
            if world_size % (tensor * pipeline) == 0:
                yield Grid(tensor, pipeline, world_size // (tensor * pipeline))


def _dealt(config: RunConfig, grid: Grid) -> Iterator[RunConfig]:
    """The grid with layers dealt out both ways, the config's own first: of two that are as fast the earlier is kept."""
    own = config.parallel.embedding_and_head_count_as_layers
    for counted in (own, not own) if grid.pipeline > 1 else (own,):
        yield _laid_out(config, **grid._asdict(), embedding_and_head_count_as_layers=counted)


def _legal(dealt: RunConfig, world_size: int, found: Found) -> Iterator[RunConfig]:
    """The layouts of a grid that break no rule, recomputation as it is; the others are counted."""
    tensor, pipeline = dealt.parallel.tensor, dealt.parallel.pipeline
    most_chunks = max(dealt.model.num_layers // pipeline, 1) if pipeline > 1 else 1
    micro_sizes = sorted({dealt.batch.micro_size, *_MICRO_SIZES})
    choices = [
        (virtual_stages, micro_size, sequence_parallel, zero_stage)
        for virtual_stages in range(1, most_chunks + 1)
        for micro_size in micro_sizes
        for sequence_parallel in ((False, True) if tensor > 1 else (False,))
        for zero_stage in (1, 2)
    ]
    found.num_tried += len(choices) * len(_RECOMPUTES)
    if broken := _broken_rule(_plainest(dealt), world_size):
        found.broken_rules[broken] += len(choices) * len(_RECOMPUTES)
        return
    for virtual_stages, micro_size, sequence_parallel, zero_stage in choices:
        laid_out = _laid_out(
            dealt,
            virtual_stages=virtual_stages,
            micro_size=micro_size,
            sequence_parallel=sequence_parallel,
            zero_stage=zero_stage,
        )
        if broken := _broken_rule(laid_out, world_size):
            found.broken_rules[broken] += len(_RECOMPUTES)
        else:
            yield laid_out


def _plainest(config: RunConfig) -> RunConfig:
    """Nothing turned on beside the grid: a rule that breaks now breaks with everything."""
    return _laid_out(config, virtual_stages=1, micro_size=1, sequence_parallel=False, zero_stage=1)


def _laid_out(config: RunConfig, *, micro_size: int | None = None, **choices: Any) -> RunConfig:
    parallel = config.parallel.model_copy(update=choices)
    batch = config.batch if micro_size is None else config.batch.model_copy(update={"micro_size": micro_size})
    return config.model_copy(update={"parallel": parallel, "batch": batch})


def _broken_rule(config: RunConfig, world_size: int) -> str | None:
    """The key of the first broken rule."""
    first = next(layout_problems(config, world_size), None)
    return first.partition(":")[0] if first else None


def _try_recomputations(legal: RunConfig, grid: Grid, cluster: Cluster, found: Found) -> None:
    for recompute in _RECOMPUTES:
        parallel = legal.parallel.model_copy(update={"recompute": recompute})
        config = legal.model_copy(update={"parallel": parallel})
        memory_bytes = _fullest(config, grid, cluster)
        if memory_bytes > cluster.accelerator.memory_bytes:
            found.num_too_large += 1
        else:
            found.keep(_timed(config, grid, cluster, memory_bytes))


def _fullest(config: RunConfig, grid: Grid, cluster: Cluster) -> int:
    """Bytes of the fullest GPU."""
    kernels, batch_size = gpu_kernels(config, cluster.accelerator), config.batch.global_size
    micro_batches = derived.num_micro_batches(config, batch_size=batch_size, data_size=grid.data)
    stages = memory_per_stage(config, data_size=grid.data, micro_batches=micro_batches, kernels=kernels)
    return max(stage.total for stage in stages)


def _timed(config: RunConfig, grid: Grid, cluster: Cluster, memory_bytes: int) -> Candidate:
    batch_size = config.batch.global_size
    model = StepModel(config, grid.data, cluster, gpu_kernels(config, cluster.accelerator))
    return Candidate(
        config=config,
        grid=grid,
        seconds=model.step(batch_size).total,
        memory_bytes=memory_bytes,
        memory_share=memory_bytes / cluster.accelerator.memory_bytes,
        model_utilization=model.model_utilization(batch_size),
    )
