"""One record per step, made once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from glm130b.training.journal import now


@dataclass(frozen=True)
class Record:
    """Numbers of one step or one evaluation; the same on every rank but for ``seconds`` and what is made of it, where
    each has its own clock.

    Names of values; a "/" leads to a part of something, a "." to one of several:

    ========================================= ========================================================================
    loss                                      nats, mean over the rows; alone with its parts in an evaluation
    loss/<objective>, loss/<section>.<source> over those rows, if there were some
    gradient_norm                             global L2, unscaled, before clipping
    gradient_norm/<part>, .../layer.<i>       attention, ffn, norms, positions or projection; one layer
    embedding_gradient_norm                   of the word embedding; /input_side and /logit_side are its shares
    parameter_norm, .../layer.<i>             L2 of the fp32 weights
    update_ratio, .../layer.<i>               norm of the step's update / norm of the weights
    second_moment/embedding_min, /_max        extremes of Adam's second moment of the word embedding
    activation_scale/layer.<i>                root mean square of a layer's output
    learning_rate, batch_size, shrink_alpha   what the schedules say; batch_size in rows
    loss_scale                                of the next step; 1 outside fp16
    overflows                                 updates skipped so far because a gradient was not finite
    skipped_updates, skipped_steps            updates not made, steps passed over, so far
    clip_share                                share of the updates so far whose gradient was clipped
    seconds                                   of the whole step
    samples_per_second, tokens_per_second     rows; tokens with padding
    teraflops_per_gpu                         of the model, on each accelerator (``throughput``)
    mfu, hfu                                  shares of an accelerator's peak, if that is known
    data_wait_seconds                         of the rank that waited longest for data
    rank_seconds/min, /median, /max           each rank's, from the step's start to the end of its backward
    slowest_rank                              the rank of the longest
    memory_allocated_gib, _reserved_gib       peak of the largest rank (``memory_use``); on the CPU _resident_gib
    tokens/<objective>, <section>.<source>    trained on so far, with padding
    ========================================= ========================================================================

    Weights and moments are read in the first step and every ``logging.weights_every_steps``. Names with "/layer." stand
    in the first record and every ``logging.layers_every_steps``.
    """

    kind: Literal["train", "validation"]
    step: int
    """Steps taken when the numbers were read."""
    samples: int
    """Rows consumed by then."""
    values: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    """What is no number: ``slowest_host``, the machine of the slowest rank."""
    time: str = field(default_factory=now, compare=False)
    """When it was made (``journal.now``)."""

    def to_dict(self) -> dict[str, Any]:
        """Flat and ready for JSON: a number that is not finite becomes None."""
        values = {name: value if math.isfinite(value) else None for name, value in self.values.items()}
        place = {"kind": self.kind, "step": self.step, "samples": self.samples, "time": self.time}
        return {**place, **values, **self.labels}

    def without_layers(self) -> "Record":
        """The same record without the numbers of single layers."""
        return replace(self, values={name: value for name, value in self.values.items() if "/layer." not in name})


def is_due(step: int, every_steps: int) -> bool:
    """Whether what is read every so many steps is read in this one, counted from 1; the first always is."""
    return step == 1 or step % every_steps == 0
