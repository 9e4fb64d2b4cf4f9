"""What a search found, as a page."""

from collections.abc import Iterator

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.plan.cluster import Cluster
from glm130b.plan.memory import TIGHT
from glm130b.plan.search import Candidate, Found
from glm130b.plan.wording import duration, gib, paragraph

_MOST_ROWS, _MOST_REASONS = 12, 6
_COLUMNS = "  {:>2} {:>3} {:>3} {:>5} {:>6} {:>4} {:>9} {:>5} {:>4} {:>10} {:>8} {:>6}"


def search_page(config: RunConfig, cluster: Cluster, found: Found, *, world_size: int) -> str:
    """The fastest layouts, each with the overrides that make it of ``config``, and why the others fell away.

    Raises UserError where every layout breaks a rule.
    """
    if not found.num_fitting + found.num_too_large:
        key, _ = found.broken_rules.most_common(1)[0]
        raise UserError(f"--search: no layout of {world_size:,} GPUs keeps the rules; most break {key}; change either")
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
    yield "The fastest of each grid: time of a full step, GiB of the fullest GPU"
    yield _COLUMNS.format("", "TP", "PP", "DP", "chunks", "seq.", "recompute", "micro", "ZeRO", "step", "GiB", "MFU")
    for place, candidate in enumerate(found.best[:_MOST_ROWS], start=1):
        yield _row(f"{place}", candidate)
        changes = " ".join(candidate.overrides(config))
        yield from paragraph(f"    {changes}" if changes else "    the config as it is", indent="      ")
    if len(found.best) > _MOST_ROWS:
        yield f"  and {len(found.best) - _MOST_ROWS:,} more grids"
    if any(candidate.is_tight for candidate in found.best[:_MOST_ROWS]):
        yield f"  * tight: above {TIGHT:.0%} of the memory, so behind all others"
    if found.as_it_is:
        yield "The config as it is, for comparison" + ", which does not fit" * (found.as_it_is.memory_share > 1)
        yield _row("", found.as_it_is)


def _row(place: str, candidate: Candidate) -> str:
    parallel, batch = candidate.config.parallel, candidate.config.batch
    cut = "cut" if parallel.sequence_parallel else "-"
    row = _COLUMNS.format(
        place,
        *candidate.grid,
        parallel.virtual_stages,
        cut,
        parallel.recompute,
        batch.micro_size,
        parallel.zero_stage,
        duration(candidate.seconds),
        gib(candidate.memory_bytes),
        f"{candidate.model_utilization:.1%}",
    )
    return row + "*" * candidate.is_tight


def _nothing() -> Iterator[str]:
    yield "No layout fits: take more or larger GPUs, shorter rows, or parallel.offload_optimizer=true"
