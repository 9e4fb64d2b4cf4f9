"""One record per step, made once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Record:
    """Numbers of one step or one evaluation, the same on every rank."""

    kind: Literal["train", "validation"]
    step: int
    """Steps taken when the numbers were read."""
    samples: int
    """Rows consumed by then."""
    values: Mapping[str, float]
    """``loss`` and ``loss/<objective>`` (nats, mean over rows); in a training step also ``gradient_norm`` (global L2,
    unscaled, before clipping) and of it ``embedding_gradient_norm`` (of the word embedding), ``learning_rate``,
    ``batch_size`` (rows), ``shrink_alpha``, ``loss_scale``, ``skipped_updates`` and ``skipped_steps`` (so far),
    ``seconds``, ``data_wait_seconds`` (of them, this rank's wait for data), ``tokens_per_second`` (rows x sequence
    length, with padding), and counted in the same way the tokens so far of every objective and source,
    ``tokens/<objective>`` and ``tokens/<section>.<source>``."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """What is no number: ``slowest_host``."""

    def to_dict(self) -> dict[str, Any]:
        """Flat and ready for JSON: a number that is not finite becomes None."""
        values = {name: value if math.isfinite(value) else None for name, value in self.values.items()}
        return {"kind": self.kind, "step": self.step, "samples": self.samples, **values, **self.labels}
