"""TensorBoard's own reader finds what was written."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from glm130b.training.journal import Event
from glm130b.training.metrics import Record
from glm130b.training.sinks.tensorboard import TensorBoard
from tests.harness.full_disk import nothing_larger_than


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard")).Reload()


def steps(folder: Path) -> list[int]:
    return [scalar.step for scalar in read(folder).Scalars("train/loss")]


def write(folder: Path, numbers: range, *, begin: int) -> None:
    sink = TensorBoard(folder)
    sink.begin(begin)
    for step in numbers:
        sink.write(Record("train", step, 8 * step, {"loss": float(step), "gradient_norm/layer.0": 0.5}))
    sink.close()


def test_values_and_events(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path)
    sink.begin(0)
    sink.write(Record("train", 1, 8, {"loss": 2.5, "gradient_norm/layer.0": 0.5}, {"slowest_host": "node1"}))
    sink.write(Record("validation", 1, 8, {"loss": 3.5}))
    sink.tell(Event("gradient norm", 1, "12 deviations above"))
    found = read(tmp_path)  # also before it is closed
    assert [(scalar.step, scalar.value) for scalar in found.Scalars("validation/loss")] == [(1, 3.5)]
    assert set(found.Tags()["scalars"]) == {"train/loss", "train/gradient_norm/layer.0", "validation/loss"}
    (told,) = found.Tensors("events/gradient norm")
    assert told.tensor_proto.string_val == [b"12 deviations above"]
    sink.close()


def test_a_resume_voids_later_steps(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8), begin=0)
    write(tmp_path, range(5, 7), begin=4)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_rewind_voids_later_steps(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path)
    for begin, numbers in [(0, range(1, 8)), (3, range(4, 6))]:
        sink.begin(begin)
        for step in numbers:
            sink.write(Record("train", step, 8 * step, {"loss": float(step)}))
    sink.close()
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


def test_a_run_that_starts_anew_voids_everything(tmp_path: Path) -> None:
    write(tmp_path, range(4), begin=0)
    write(tmp_path, range(2), begin=0)
    assert steps(tmp_path) == [0, 1]


def test_after_a_full_disk_it_goes_on_in_a_new_file(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path)
    sink.begin(0)
    sink.write(Record("train", 1, 8, {"loss": 1.0}))
    (file,) = (tmp_path / "tensorboard").iterdir()
    with nothing_larger_than(file.stat().st_size + 10), pytest.raises(OSError, match="too large"):
        sink.write(Record("train", 2, 16, {"loss": 2.0}))
    sink.write(Record("train", 2, 16, {"loss": 2.0}))
    sink.close()
    assert steps(tmp_path) == [1, 2]
