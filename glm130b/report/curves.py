"""What a report draws as curves: which values stand in one chart, and what they are measured in."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Line:
    """Values of one name, or of all names that the pattern matches whole; its group is the curve's label."""

    pattern: str
    label: str | None = None
    kind: Literal["train", "validation"] = "train"


@dataclass(frozen=True)
class CurveChart:
    """Curves over the steps, of all runs in one chart; left out where no run has any of the values."""

    key: str
    """Name of its picture file, and its place on the page."""
    section: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    note: str = ""
    is_log: bool = False
    is_from_zero: bool = False
    """Its axis begins at 0."""
    is_steep_at_first: bool = False
    """Its axis ends where the values are after the first steps, which would flatten all others."""
    is_noisy: bool = False
    """Drawn with a running mean."""
    form: str = ".4g"
    """Of values under the pointer, in d3's words; a share's ends with %."""
    marks: str | None = None
    """The column on which incidents of the guard are marked."""
    is_small: bool = False
    """Two beside each other on a wide screen."""


LOSS, STABILITY, INCIDENTS, SPEED, SCHEDULES, DATA = SECTIONS = (
    "Loss",
    "Stability",
    "Incidents",
    "Speed",
    "Schedules",
    "Data",
)
"""Of the page, in its order."""
_OBJECTIVE, _SOURCE = r"loss/([^./]+)", r"loss/[^./]+\.(.+)"
_NATS = "nats per token"

CURVE_CHARTS = (
    CurveChart(
        "loss",
        LOSS,
        "Loss",
        _NATS,
        (Line("loss", "training"), Line("loss", "validation", kind="validation")),
        is_steep_at_first=True,
        is_noisy=True,
        marks="loss",
    ),
    CurveChart(
        "loss-by-objective",
        LOSS,
        "Training loss by objective",
        _NATS,
        (Line(_OBJECTIVE),),
        is_steep_at_first=True,
        is_noisy=True,
    ),
    CurveChart(
        "validation-by-objective",
        LOSS,
        "Validation loss by objective",
        _NATS,
        (Line(_OBJECTIVE, kind="validation"),),
        is_steep_at_first=True,
    ),
    CurveChart(
        "loss-by-source",
        LOSS,
        "Training loss by source",
        _NATS,
        (Line(_SOURCE),),
        is_steep_at_first=True,
        is_noisy=True,
    ),
    CurveChart(
        "validation-by-source",
        LOSS,
        "Validation loss by source",
        _NATS,
        (Line(_SOURCE, kind="validation"),),
        is_steep_at_first=True,
    ),
    CurveChart(
        "gradient-norm",
        STABILITY,
        "Gradient norm",
        "L2 norm",
        (Line("gradient_norm", "all weights"),),
        "Before clipping. Circles: spikes. Diamonds: what the stability guard did. Triangles: steps whose gradient was "
        "not finite.",
        is_log=True,
        is_noisy=True,
        marks="gradient_norm",
    ),
    CurveChart(
        "embedding-gradient-norm",
        STABILITY,
        "Gradient norm of the word embedding",
        "L2 norm",
        (
            Line("embedding_gradient_norm", "both sides"),
            Line("embedding_gradient_norm/input_side", "input side"),
            Line("embedding_gradient_norm/logit_side", "logit side"),
        ),
        "A spike shows here first, before the loss sees it.",
        is_log=True,
        is_noisy=True,
        marks="embedding_gradient_norm",
    ),
    CurveChart(
        "gradient-norm-by-part",
        STABILITY,
        "Gradient norm by part of the model",
        "L2 norm",
        (Line(r"gradient_norm/([^.]+)"),),
        is_log=True,
        is_noisy=True,
    ),
    CurveChart(
        "update-ratio",
        STABILITY,
        "Update to weight",
        "ratio of L2 norms",
        (Line("update_ratio", "all weights"),),
        is_log=True,
        is_small=True,
    ),
    CurveChart(
        "parameter-norm", STABILITY, "Weights", "L2 norm", (Line("parameter_norm", "all weights"),), is_small=True
    ),
    CurveChart(
        "second-moment",
        STABILITY,
        "Adam's second moment of the embedding",
        "smallest and largest",
        (Line(r"second_moment/embedding_(min|max)"),),
        is_log=True,
        is_small=True,
    ),
    CurveChart(
        "clip-share",
        STABILITY,
        "Clipped updates",
        "share so far",
        (Line("clip_share", "clipped"),),
        is_from_zero=True,
        form=".2%",
        is_small=True,
    ),
    CurveChart(
        "tokens-per-second",
        SPEED,
        "Throughput",
        "tokens per second",
        (Line("tokens_per_second", "tokens"),),
        is_noisy=True,
        form=",.4~s",
        is_small=True,
    ),
    CurveChart(
        "teraflops",
        SPEED,
        "Arithmetic",
        "model TFLOP/s per accelerator",
        (Line("teraflops_per_gpu", "model"),),
        is_noisy=True,
        is_small=True,
    ),
    CurveChart(
        "utilization",
        SPEED,
        "Utilization",
        "share of peak",
        (Line("mfu", "MFU"), Line("hfu", "HFU")),
        is_noisy=True,
        form=".1%",
        is_small=True,
    ),
    CurveChart(
        "step-time",
        SPEED,
        "Time of a step",
        "seconds",
        (Line("seconds", "whole step"), Line("data_wait_seconds", "waiting for data")),
        is_noisy=True,
        is_small=True,
    ),
    CurveChart(
        "rank-time",
        SPEED,
        "Ranks at work",
        "seconds",
        (
            Line("rank_seconds/max", "slowest"),
            Line("rank_seconds/median", "median"),
            Line("rank_seconds/min", "fastest"),
        ),
        "Each rank's own time to the end of its forward and backward pass.",
        is_noisy=True,
        is_small=True,
    ),
    CurveChart(
        "memory",
        SPEED,
        "Memory",
        "GiB, largest rank",
        (Line(r"memory_(allocated|reserved|resident)_gib"),),
        is_small=True,
    ),
    CurveChart(
        "learning-rate",
        SCHEDULES,
        "Learning rate",
        "per update",
        (Line("learning_rate", "learning rate"),),
        is_small=True,
    ),
    CurveChart(
        "batch-size",
        SCHEDULES,
        "Batch size",
        "rows",
        (Line("batch_size", "rows"),),
        form=",d",
        is_from_zero=True,
        is_small=True,
    ),
    CurveChart(
        "shrink-alpha",
        SCHEDULES,
        "Embedding gradient shrink",
        "alpha",
        (Line("shrink_alpha", "alpha"),),
        is_from_zero=True,
        is_small=True,
    ),
    CurveChart(
        "loss-scale", SCHEDULES, "Loss scale", "factor", (Line("loss_scale", "loss scale"),), is_log=True, is_small=True
    ),
    CurveChart(
        "skipped",
        SCHEDULES,
        "Updates and steps without learning",
        "count so far",
        (
            Line("overflows", "overflows"),
            Line("skipped_updates", "skipped updates"),
            Line("skipped_steps", "steps passed over"),
        ),
        is_from_zero=True,
        form=",d",
        is_small=True,
    ),
)
