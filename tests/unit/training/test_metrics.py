"""A record is JSON whatever it measured, and reaches every sink."""

import json
import math

from glm130b.training.metrics import Record, is_due
from glm130b.training.sinks.recorder import Recorder


class Lines:
    """A sink that writes into a list shared with others."""

    def __init__(self, name: str, lines: list[tuple[str, object]]) -> None:
        self._name = name
        self._lines = lines

    def write(self, record: Record) -> None:
        self._lines.append((self._name, record))

    def close(self) -> None:
        self._lines.append((self._name, "closed"))


def test_a_record_is_flat() -> None:
    record = Record(kind="train", step=3, samples=24, values={"loss": 1.5, "loss/mask": 2.0}, time="now")
    place = {"kind": "train", "step": 3, "samples": 24, "time": "now"}
    assert record.to_dict() == {**place, "loss": 1.5, "loss/mask": 2.0}


def test_what_is_not_finite_is_none() -> None:
    values = {"loss": math.nan, "gradient_norm": math.inf, "loss_scale": -math.inf, "batch_size": 8}
    line = Record(kind="train", step=1, samples=8, values=values).to_dict()
    assert [line[name] for name in values] == [None, None, None, 8]
    json.dumps(line, allow_nan=False)
    assert math.isnan(values["loss"])


def test_layers_can_be_left_out() -> None:
    values = {
        "gradient_norm": 1.0,
        "gradient_norm/ffn": 0.5,
        "gradient_norm/layer.0": 0.5,
        "update_ratio/layer.11": 0.1,
    }
    record = Record(kind="train", step=2, samples=16, values=values, labels={"slowest_host": "a"})
    left = record.without_layers()
    assert left.values == {"gradient_norm": 1.0, "gradient_norm/ffn": 0.5}
    assert (left.kind, left.step, left.samples, left.labels) == ("train", 2, 16, {"slowest_host": "a"})


def test_what_is_due_every_so_many_steps_is_due_in_the_first() -> None:
    assert [step for step in range(1, 13) if is_due(step, 5)] == [1, 5, 10]
    assert all(is_due(step, 1) for step in range(1, 4))


def test_every_sink_gets_every_record_in_order() -> None:
    lines: list[tuple[str, object]] = []
    recorder = Recorder([Lines("first", lines), Lines("second", lines)])
    record = Record(kind="validation", step=0, samples=0, values={"loss": 2.0})
    recorder.write(record)
    recorder.close()
    assert lines == [("first", record), ("second", record), ("first", "closed"), ("second", "closed")]
