"""Micro-batches come in the order of the steps, whoever builds them and wherever one begins."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psutil
import pytest
import torch

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.data.batch import MicroBatch
from glm130b.data.batches import Rows, micro_batches
from glm130b.data.loader import Loader
from glm130b.data.objectives.row import Row
from tests.harness.synthetic import SyntheticRows, small_config

STEP = 8

TRAINER = """
import time
from tests.unit.data.test_loader import loader
if __name__ == "__main__":
    rows = loader(2)
    list(rows.micro_batches(range(8)))
    print("training", flush=True)
    time.sleep(60)
"""

ASKED_TO_END = """
import signal
from itertools import islice
from tests.unit.data.test_loader import loader, steps_from
if __name__ == "__main__":
    for request in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(request, lambda *_: None)
    rows = loader(2)
    list(rows.micro_batches(range(8)))
    print("training", flush=True)
    input()
    for step in islice(steps_from(8), 20):
        list(rows.micro_batches(step))
    print("went on", flush=True)
    rows.close()
"""


class SlowRows(SyntheticRows):
    """A row takes a while."""

    def __getitem__(self, sample_index: int) -> Row:
        time.sleep(0.02)
        return super().__getitem__(sample_index)


class MarkedRows(SyntheticRows):
    """A row that has been built leaves a file of its number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, sample_index: int) -> Row:
        (self._folder / str(sample_index)).touch()
        return super().__getitem__(sample_index)


class UnmendedRows(SyntheticRows):
    """Every row meets a file that the user has to mend."""

    def __getitem__(self, sample_index: int) -> Row:
        raise UserError(["corpus a: is damaged", "corpus b: is too"])


class BrokenRows(SyntheticRows):
    """The third step cannot be read."""

    def __getitem__(self, sample_index: int) -> Row:
        if sample_index >= 2 * STEP:
            raise OSError("the disk is gone")
        return super().__getitem__(sample_index)


def steps_from(sample: int) -> Iterator[range]:
    """Steps of eight rows, without the one that begins at 24, up to sample 56."""
    return (range(first, first + STEP) for first in range(sample, 56, STEP) if first != 24)


def config(workers: int) -> RunConfig:
    return small_config(data={"workers": workers, "prefetch_batches": 2})


def loader(workers: int, rows: Rows | None = None) -> Loader:
    return Loader(
        rows or SyntheticRows(), config(workers), steps_from=steps_from, data_rank=1, data_size=2, pin_memory=False
    )


def expected(step: range) -> list[MicroBatch]:
    return list(
        micro_batches(
            SyntheticRows(), first_sample=step.start, batch_size=len(step), micro_size=2, data_rank=1, data_size=2
        )
    )


def assert_same(found: list[MicroBatch], wanted: list[MicroBatch]) -> None:
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        for name in ("tokens_BS", "targets_BS", "positions_B2S", "loss_weights_BS"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert (one.segments, one.kinds) == (other.segments, other.kinds)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_step_gets_its_rows_whoever_builds_them(workers: int) -> None:
    rows = loader(workers)
    for step in steps_from(0):
        assert_same(list(rows.micro_batches(step)), expected(step))
    rows.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_step_that_was_not_foreseen_is_right_too(workers: int) -> None:
    rows = loader(workers)
    for first in (16, 0, 8, 40):  # a resumed run, a rewind, the next step, a leap
        assert_same(list(rows.micro_batches(range(first, first + STEP))), expected(range(first, first + STEP)))
    rows.close()


def test_samples_that_are_no_step_are_refused() -> None:
    rows = loader(0)
    assert_same(list(rows.micro_batches(range(8))), expected(range(8)))
    with pytest.raises(ValueError, match=r"8 \.\. 24"):
        list(rows.micro_batches(range(8, 24)))


def test_workers_stay_while_the_steps_are_as_foreseen() -> None:
    rows = loader(0)
    started = []
    start = rows._start
    rows._start = lambda step: (started.append(step.start), start(step))[1]  # type: ignore[method-assign]
    for step in steps_from(0):
        assert len(list(islice(rows.micro_batches(step), STEP // 4))) == STEP // 4  # as many as there are, and no end
    assert started == [0]


def test_rows_are_built_ahead(tmp_path: Path) -> None:
    rows = loader(2, MarkedRows(tmp_path))
    list(rows.micro_batches(range(STEP)))
    deadline = time.monotonic() + 60
    while not all((tmp_path / row).exists() for row in ("10", "11", "14", "15")):  # the next step's
        assert time.monotonic() < deadline, sorted(path.name for path in tmp_path.iterdir())
        time.sleep(0.02)
    rows.close()


def test_the_time_spent_in_building_rows_here_is_counted() -> None:
    rows = loader(0, SlowRows())
    list(rows.micro_batches(range(STEP)))
    assert rows.seconds_waited > 0.08


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_row_meets_reaches_the_training_process(workers: int) -> None:
    rows = loader(workers, BrokenRows())
    first, second, third = islice(steps_from(0), 3)
    assert len([*rows.micro_batches(first), *rows.micro_batches(second)]) == 4
    with pytest.raises(OSError, match="the disk is gone"):
        list(rows.micro_batches(third))
    rows.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_user_has_to_mend_is_told_as_it_is(workers: int) -> None:
    rows = loader(workers, UnmendedRows())
    with pytest.raises(UserError) as caught:
        list(rows.micro_batches(range(8)))
    assert list(caught.value.problems) == ["corpus a: is damaged", "corpus b: is too"]
    rows.close()


def test_a_step_that_was_not_read_to_its_end_does_not_shift_the_next() -> None:
    rows = loader(0)
    next(rows.micro_batches(range(8)))
    assert_same(list(rows.micro_batches(range(8, 16))), expected(range(8, 16)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_a_trainer_that_is_killed(root: Path, how: signal.Signals) -> None:
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER], cwd=root, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "training\n"
    children = psutil.Process(trainer.pid).children(recursive=True)
    assert len(children) >= 2
    trainer.send_signal(how)
    _, alive = psutil.wait_procs(children, timeout=60)
    for process in alive:
        process.kill()
    assert not alive
    trainer.wait(timeout=60)
    trainer.stdout.close()


@pytest.mark.parametrize("request_to_end", [signal.SIGTERM, signal.SIGUSR1])
def test_workers_leave_requests_to_end_to_the_trainer(root: Path, request_to_end: signal.Signals) -> None:
    trainer = subprocess.Popen(
        [sys.executable, "-c", ASKED_TO_END],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "training\n"
    os.killpg(trainer.pid, request_to_end)  # as launchers and Slurm do
    time.sleep(0.5)
    told, _ = trainer.communicate("\n", timeout=60)
    assert told == "went on\n"
    assert trainer.returncode == 0
