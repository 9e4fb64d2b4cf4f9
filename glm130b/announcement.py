"""What a run says when it starts: where it runs, where it begins, and what the user should know."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from glm130b.checkpoint.description import Description
from glm130b.config.ramp import Ramp
from glm130b.config.sections import RunConfig
from glm130b.data.mixing.era import Era, changes
from glm130b.data.sources import Sources
from glm130b.model.stage import Stage
from glm130b.parallel.topology import Topology


def announcement(
    config: RunConfig,
    *,
    topology: Topology,
    stage: Stage,
    saved: tuple[Path, Description] | None,
    folder: Path,
    sources: Sources,
    eras: Sequence[Era],
) -> str:
    """``saved`` is the checkpoint that the run continues, ``folder`` the run's own."""
    lines = [
        _place(config, topology),
        stage.kernels.describe(),
        _beginning(config, saved, folder),
        _drawn_from(eras[-1]),
        *(f"{change}; what was drawn before stays as it was" for change in changes(eras)),
        *_warnings(config, sources),
    ]
    return "\n".join(lines)


def _place(config: RunConfig, topology: Topology) -> str:
    return (
        f"{config.name}: {config.precision.dtype} on {topology.world_size} x {topology.device.type}, "
        f"TP {topology.tensor.size} x PP {topology.pipeline.size} x DP {topology.data.size}, "
        f"ZeRO {config.parallel.zero_stage}, torch {torch.__version__}"
    )


def _beginning(config: RunConfig, saved: tuple[Path, Description] | None, folder: Path) -> str:
    """Where the run begins."""
    if saved is None:
        return f"starts from {config.initial_weights or 'its initial weights'}"
    checkpoint, description = saved
    if description.progress.samples >= config.train_samples:
        return f"{checkpoint}: is complete, nothing is left to train; remove {folder} to start anew"
    return f"continues {checkpoint} at step {description.progress.step}"


def _drawn_from(era: Era) -> str:
    """The sources that ever have a share: one that an empty line in a config has taken out is missed here."""
    drawn = {"text": _shared(era.text), "instructions": _shared(era.instructions)}
    if not _has_share(era.instruction_share):
        del drawn["instructions"]
    return "draws from " + "; ".join(f"{section} {', '.join(names)}" for section, names in drawn.items() if names)


def _shared(weights: Mapping[str, Ramp]) -> list[str]:
    return [name for name, weight in weights.items() if _has_share(weight)]


def _has_share(ramp: Ramp) -> bool:
    return max(ramp.start, ramp.end) > 0


def _warnings(config: RunConfig, sources: Sources) -> Iterator[str]:
    warmup, end = config.optimizer.learning_rate.warmup_samples, config.train_samples
    if warmup > end:  # a short try of a long run's config is no mistake
        yield (
            f"warning: optimizer.learning_rate.warmup_samples: {warmup} is more than train_samples {end}, so the "
            f"run ends in its warm-up; write for example {max(1, end // 100)}"
        )
    for name, count in sources.num_left_out.items():
        if count:
            yield (
                f"warning: data.instructions.{name}: {count} pairs are left out, their answers do not fit a row; raise "
                "data.sequence_length"
            )
