"""Which numbers of a run stand together in a dashboard: its sections, their panels, and what each shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Panel:
    """Curves over the samples; those of the layers lie over each other, and ``glm130b report`` has them as a map."""

    title: str
    names: tuple[str, ...] = ()
    """Of values, with the kind of their records: ``train/loss``."""
    pattern: str | None = None
    """Regular expression for the names instead, where a run decides how many there are: layers, sources, events."""
    scale: Literal["linear", "log"] = "linear"
    style: Literal["line", "shares"] = "line"
    """``shares`` stacks the curves and shows each one's part of their sum."""
    unit: str = ""


@dataclass(frozen=True)
class Section:
    """Panels that answer one question."""

    title: str
    panels: tuple[Panel, ...]


def _train(*names: str) -> tuple[str, ...]:
    return tuple(f"train/{name}" for name in names)


_OBJECTIVES = ("mask", "smask", "gmask", "instruction")
_SOURCE = r"(text|instructions)\..+$"
_LAYER = r"layer\.\d+$"

_STABILITY = Section(
    "Stability",
    (
        Panel("Gradient norm", _train("gradient_norm", "embedding_gradient_norm"), scale="log"),
        Panel(
            "Embedding gradient norm by side",
            _train(
                "embedding_gradient_norm", "embedding_gradient_norm/input_side", "embedding_gradient_norm/logit_side"
            ),
            scale="log",
        ),
        Panel("Gradient norm of every layer", pattern=rf"^train/gradient_norm/{_LAYER}", scale="log"),
        Panel(
            "Gradient norm by kind of parameter",
            _train(*(f"gradient_norm/{kind}" for kind in ("attention", "ffn", "norms", "positions", "projection"))),
            scale="log",
        ),
        Panel("Spikes and other events, so far", pattern=r"^events/"),
        Panel("Loss scale", _train("loss_scale"), scale="log"),
        Panel("Overflows and skipped updates, so far", _train("overflows", "skipped_updates", "skipped_steps")),
        Panel("Share of updates that were clipped", _train("clip_share")),
        Panel("Update to weight", _train("update_ratio"), scale="log"),
        Panel("Update to weight of every layer", pattern=rf"^train/update_ratio/{_LAYER}", scale="log"),
        Panel("Norm of the weights", _train("parameter_norm")),
        Panel(
            "Adam's second moment of the embedding",
            _train("second_moment/embedding_min", "second_moment/embedding_max"),
            scale="log",
        ),
        Panel("Scale of every layer's output", pattern=rf"^train/activation_scale/{_LAYER}", scale="log"),
    ),
)

_LOSS = Section(
    "Loss",
    (
        Panel("Loss", ("train/loss", "validation/loss"), unit="nats"),
        Panel("Loss by objective", _train(*(f"loss/{objective}" for objective in _OBJECTIVES)), unit="nats"),
        Panel("Loss by source", pattern=rf"^train/loss/{_SOURCE}", unit="nats"),
        Panel(
            "Validation loss by objective",
            tuple(f"validation/loss/{objective}" for objective in _OBJECTIVES),
            unit="nats",
        ),
        Panel("Validation loss by source", pattern=rf"^validation/loss/{_SOURCE}", unit="nats"),
    ),
)

_THROUGHPUT = Section(
    "Throughput",
    (
        Panel("Tokens a second", _train("tokens_per_second")),
        Panel("Model FLOP/s of a GPU", _train("teraflops_per_gpu"), unit="TFLOP/s"),
        Panel("Share of the peak", _train("mfu", "hfu")),
        Panel("A step, and its wait for data", _train("seconds", "data_wait_seconds"), unit="s"),
        Panel("A rank's own time", _train("rank_seconds/min", "rank_seconds/median", "rank_seconds/max"), unit="s"),
        Panel("Slowest rank", _train("slowest_rank")),
        Panel(
            "Memory of the largest rank",
            _train("memory_allocated_gib", "memory_reserved_gib", "memory_resident_gib"),
            unit="GiB",
        ),
        Panel("Samples a second", _train("samples_per_second")),
    ),
)

_DATA = Section(
    "Data",
    (
        Panel("Tokens by objective", _train(*(f"tokens/{objective}" for objective in _OBJECTIVES)), style="shares"),
        Panel("Tokens by source", pattern=rf"^train/tokens/{_SOURCE}", style="shares"),
        Panel("Tokens by source, so far", pattern=rf"^train/tokens/{_SOURCE}"),
    ),
)

_SCHEDULES = Section(
    "Schedules",
    (
        Panel("Learning rate", _train("learning_rate")),
        Panel("Batch", _train("batch_size"), unit="rows"),
        Panel("Embedding gradient shrink", _train("shrink_alpha"), unit="alpha"),
    ),
)

SECTIONS: Sequence[Section] = (_STABILITY, _LOSS, _THROUGHPUT, _DATA, _SCHEDULES)
