"""One record per step, made once and given to every sink."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


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

    def to_dict(self) -> dict[str, Any]:
        """Flat and ready for JSON: a number that is not finite becomes None."""
        values = {name: value if math.isfinite(value) else None for name, value in self.values.items()}
        return {"kind": self.kind, "step": self.step, "samples": self.samples, **values}


class Sink(Protocol):
    """Somewhere records go. Lives on one rank only."""

    def write(self, record: Record) -> None: ...

    def close(self) -> None: ...


class Recorder:
    """Hands each record to the sinks of this rank; ranks without sinks record nothing."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def write(self, record: Record) -> None:
        for sink in self._sinks:
            sink.write(record)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()
