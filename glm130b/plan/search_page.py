"""What a search found, as a page."""

from collections.abc import Iterator

from glm130b.config.sections import RunConfig
from glm130b.plan.cluster import Cluster
from glm130b.plan.search import Candidate, Found
from glm130b.plan.wording import gib, paragraph, seconds

_MOST_ROWS, _MOST_REASONS = 12, 6


def search_page(config: RunConfig, cluster: Cluster, found: Found, *, world_size: int) -> str:
    """The fastest layouts, each with the overrides that make it of ``config``, and why the others fell away."""
    blocks = [_fallen(cluster, found, world_size), _best(config, found) if found.best else _nothing()]
    return "\n\n".join("\n".join(block) for block in blocks)


def _fallen(cluster: Cluster, found: Found, world_size: int) -> Iterator[str]:
    yield f"Search over {world_size:,} GPUs, {cluster.accelerator.name}: {found.num_tried:,} layouts tried"
    yield f"  {found.num_fitting:>10,} fit"
    yield f"  {found.num_too_large:>10,} are too large for {gib(cluster.accelerator.memory_bytes)} GiB"
    reasons = found.broken_rules.most_common()
    for key, count in reasons[:_MOST_REASONS]:
        yield f"  {count:>10,} break the rule of {key}"
    if rest := sum(count for _, count in reasons[_MOST_REASONS:]):
        yield f"  {rest:>10,} break other rules"


def _best(config: RunConfig, found: Found) -> Iterator[str]:
    yield "The fastest of each grid: seconds of a full step, GiB of the fullest GPU"
    yield "      TP  PP   DP chunks  seq. recompute micro ZeRO       s     GiB    MFU"
    for place, candidate in enumerate(found.best[:_MOST_ROWS], start=1):
        yield _row(f"{place}", candidate)
        changes = " ".join(candidate.overrides(config))
        yield from paragraph(f"    {changes}" if changes else "    the config as it is", indent="      ")
    if len(found.best) > _MOST_ROWS:
        yield f"  and {len(found.best) - _MOST_ROWS:,} slower grids"
    if found.as_it_is:
        yield "The config as it is, for comparison"
        yield _row("", found.as_it_is)


def _row(place: str, candidate: Candidate) -> str:
    parallel, batch = candidate.config.parallel, candidate.config.batch
    cut = "cut" if parallel.sequence_parallel else "-"
    return (
        f"  {place:>2}{parallel.tensor:>4}{parallel.pipeline:>4}{candidate.grid.data:>5}{parallel.virtual_stages:>7}"
        f"{cut:>6}{parallel.recompute:>10}{batch.micro_size:>6}{parallel.zero_stage:>5}"
        f"{seconds(candidate.seconds):>8}{gib(candidate.memory_bytes):>8}{candidate.model_utilization:>7.1%}"
    )


def _nothing() -> Iterator[str]:
    yield "No layout fits: take more or larger GPUs, shorter rows, or parallel.offload_optimizer=true"
