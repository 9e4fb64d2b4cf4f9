"""When a checkpoint is saved, and what a save that is slow or fails does to the run."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from glm130b.checkpoint import saver
from glm130b.checkpoint.saver import BROKEN, FAILED, IDLE, WRITING, WRITTEN
from glm130b.checkpoint.storage import SaveFailed
from tests.unit.checkpoint.saver_run import STALL, Run


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize(
    ("start", "end", "saved"),
    [(0, 7, [3, 6, 7]), (0, 6, [3, 6]), (0, 2, [2]), (6, 8, [8]), (4, 6, [6])],
)
def test_every_n_steps_and_once_at_the_end(
    monkeypatch: pytest.MonkeyPatch, asynchronous: bool, start: int, end: int, saved: list[int]
) -> None:
    run = Run(monkeypatch, start, asynchronous=asynchronous)
    for step in range(start + 1, end + 1):
        run.take_step(is_last=step == end)
    assert run.store.saved == saved
    assert run.store.retained == [(5, None)] * len(saved)
    assert [name for name, _, _ in run.told] == ["checkpoint saved"] * len(saved)


def test_training_goes_on_while_a_save_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.store.go_on.clear()
    assert [run.take_step() for _ in range(5)] == [IDLE, IDLE, WRITING, WRITING, WRITING]
    run.store.go_on.set()
    assert [run.take_step(), run.take_step()] == [WRITTEN, IDLE]
    assert run.store.saved == [3]
    (passed_over, step, message), (name, _, _) = run.told
    assert (passed_over, step, name) == ("checkpoint passed over", 6, "checkpoint saved")
    assert message == (
        "not saved: the checkpoint of step 3 is still being written, for 0 min; step 0 is the newest that is safe"
    )


def test_how_long_a_save_is_under_way_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, start=3)
    run.store.go_on.clear()
    for _ in range(5):
        run.take_step()
    now = time.perf_counter()
    with monkeypatch.context() as patch:
        patch.setattr(saver, "time", SimpleNamespace(perf_counter=lambda: now + 600))
        run.take_step()
    run.store.go_on.set()
    assert run.told[0][2].endswith("step 6 is still being written, for 10 min; step 3 is the newest that is safe")


@pytest.mark.parametrize("asynchronous", [True, False])
def test_it_tells_what_every_good_save_took(monkeypatch: pytest.MonkeyPatch, asynchronous: bool) -> None:
    run = Run(monkeypatch, asynchronous=asynchronous)
    run.store.failures = 1
    counts = []
    for _ in range(5):
        run.take_step()
        counts.append(len(run.expected))
    assert counts == [0, 0, 0, 1, 1]  # step 3 failed, and was tried again after step 4
    run.saver.save_now(run.progress())
    assert len(run.expected) == 2
    assert all(0 < seconds < 10 for seconds in run.expected)


def test_the_next_saver_keeps_the_promise_of_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, retry_after_steps=2, every_steps=10, start=9)
    run.store.failures = 1
    run.take_step()
    assert run.saver.retry_step == 12
    after = Run(monkeypatch, every_steps=10, start=10, retry_step=run.saver.retry_step)
    for _ in range(5):
        after.take_step()
    assert after.store.saved == [12]
    assert after.saver.retry_step is None


def test_a_save_is_settled_when_nobody_is_writing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, start=2, asynchronous=False)
    run.step = run.store.state = 3
    run.saver._start(run.progress())
    for others in ([WRITING, WRITING], [WRITTEN, WRITING]):
        run.saver.hear(torch.tensor([WRITTEN, *others]).double(), run.progress())
        assert run.saver.say() == WRITTEN
        assert run.told == []
    run.saver.hear(torch.tensor([WRITTEN, WRITTEN, FAILED]).double(), run.progress())
    assert run.saver.say() == IDLE
    (told,) = run.told
    assert told == ("checkpoint failed", 3, "step 3: another rank could not write; the next try is after step 4")


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_failed_save_is_tried_again_with_the_state_of_then(
    monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    run = Run(monkeypatch, retry_after_steps=2, every_steps=10, asynchronous=asynchronous)
    run.store.failures = 2
    for _ in range(19):
        run.take_step()
    assert run.store.saved == [14]
    assert [step for name, step, _ in run.told if name == "checkpoint failed"] == [10, 12]
    assert run.told[0][2] == ("step 10: rank 3: [Errno 28] No space left on device; the next try is after step 12")


def test_saving_now_waits_for_the_one_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.store.go_on.clear()
    for _ in range(3):
        run.take_step()
    threading.Timer(0.05, run.store.go_on.set).start()
    run.saver.save_now(run.progress())
    assert run.store.saved == [3]  # this moment is what was being saved
    run.take_step()
    run.saver.save_now(run.progress())
    run.saver.save_now(run.progress())
    assert run.store.saved == [3, 4]
    assert run.saver.say() == IDLE
    assert list(dict.fromkeys(run.phases)) == [
        "saving step 3",
        "waiting for the checkpoint of step 3",
        "saving step 4",
    ]


def test_what_was_restored_is_saved_already(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, start=4)
    run.saver.save_now(run.progress())
    assert run.store.saved == []


def test_saving_now_is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, start=4)
    run.step, run.store.state, run.store.failures = 5, 5, 3
    run.saver.save_now(run.progress())
    assert run.store.saved == [5]
    assert run.pauses == [1, 2, 4]
    assert [name for name, _, _ in run.told] == ["checkpoint failed"] * 3 + ["checkpoint saved"]
    run.step, run.store.state, run.store.failures = 6, 6, 9
    with pytest.raises(SaveFailed) as raised:
        run.saver.save_now(run.progress())
    assert str(raised.value) == (
        "step 6 could not be saved for 7 s (checkpoint.patience_seconds): rank 3: [Errno 28] No space left on device; "
        "the checkpoints before it are as they were"
    )


def test_a_checkpoint_that_cannot_be_deleted_does_not_fail_the_save(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, asynchronous=False)

    def broken(**_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(run.store, "retain", broken)
    for _ in range(3):
        run.take_step()
    assert run.store.saved == [3]
    assert [name for name, _, _ in run.told] == ["checkpoints kept", "checkpoint saved"]


def test_any_error_of_a_save_is_told_and_leaves_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)

    def broken(slices: list[int], **_: Any) -> None:
        raise BaseException("no room")

    monkeypatch.setattr(run.store, "write", broken)
    for _ in range(4):
        run.take_step()
    assert run.told == [
        ("checkpoint failed", 3, "step 3: no room; the next try is after step 4"),
        ("checkpoint failed", 4, "step 4: no room; the next try is after step 5"),
    ]
    assert run.store.renewed == 2


class Saving:
    """One rank of four while they save step 3, heard as the test tells it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
        self.run, self.now = Run(monkeypatch, start=3, rank=rank), 0.0
        monkeypatch.setattr(saver, "time", SimpleNamespace(perf_counter=lambda: self.now))
        self.save = self.run.saver._save = saver._Save(3, patience_seconds=STALL)
        self.deleting, self.told = False, 0

    def hear(self, *shares: float, seconds: float = 10.0) -> None:
        """``seconds`` later, what share of its part every rank has written; the first may be ``deleting`` files."""
        self.now += seconds
        self.told += self.deleting
        told = WRITING + torch.tensor(shares).double() / 2
        told[0] += self.told
        self.run.saver.hear(told, self.run.progress())


HANGS = r"step 3 hangs on rank \d: nothing of it has been written and nothing deleted for 60 s "


@pytest.mark.parametrize(
    ("shares", "culprit"),
    [
        ((1.0, 1.0, 0.5, 0.75), 2),
        ((0.0, 0.0, 0.0, 0.0), 0),
        ((1.0, 1.0, 1.0, 1.0), 0),
        ((1.0, 2 * (WRITTEN - WRITING)), 0),
    ],
)
def test_a_save_that_hangs_ends_the_job_by_the_name_of_the_rank_that_hangs(
    monkeypatch: pytest.MonkeyPatch, shares: tuple[float, ...], culprit: int
) -> None:
    for rank in range(len(shares)):
        saving = Saving(monkeypatch, rank)
        for _ in range(7):  # what is heard first is news
            saving.hear(*shares)
        if rank == culprit:
            with pytest.raises(RuntimeError, match=HANGS.replace(r"\d", str(rank))):
                saving.hear(*shares)
        else:
            saving.hear(*shares)


def test_a_long_save_on_which_some_rank_writes_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    saving = Saving(monkeypatch, rank=0)
    for hundredths in range(100):
        for _ in range(5):
            saving.hear(0.0, hundredths / 100, 1.0)
    assert saving.save.age_seconds > 50 * STALL


@pytest.mark.parametrize("shares", [(0.0, 0.0), (1.0, 1.0), (1.0, 2 * (WRITTEN - WRITING))])
def test_a_save_that_deletes_many_files_does_not_hang_until_that_does(
    monkeypatch: pytest.MonkeyPatch, shares: tuple[float, ...]
) -> None:
    """Leftovers before it, and after it what it replaces and old checkpoints: the first rank does, all wait for it."""
    saving = Saving(monkeypatch, rank=0)
    saving.deleting = True
    for _ in range(100):
        saving.hear(*shares)
    saving.deleting = False
    for _ in range(6):
        saving.hear(*shares)
    with pytest.raises(RuntimeError, match=HANGS.replace(r"\d", "0")):
        saving.hear(*shares)


def test_a_job_that_was_suspended_has_no_save_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    saving = Saving(monkeypatch, rank=0)
    saving.hear(0.5)
    saving.hear(0.5, seconds=1000 * STALL)
    for _ in range(4):  # the pause counts for 18 s
        saving.hear(0.5)
    with pytest.raises(RuntimeError, match=HANGS):
        saving.hear(0.5)


def test_who_waits_for_a_save_that_hangs_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.store.go_on.clear()
    for _ in range(3):
        run.take_step()
    begun, seconds = time.perf_counter(), iter(range(0, 100_000, 10))
    clock = SimpleNamespace(perf_counter=lambda: begun + next(seconds), sleep=run.pauses.append)
    with monkeypatch.context() as patch:
        patch.setattr(saver, "time", clock)
        with pytest.raises(RuntimeError, match=HANGS):
            run.saver.save_now(run.progress())
    run.store.go_on.set()
    assert run.phases.count("waiting for the checkpoint of step 3") == len(run.pauses) + 1  # it moves


def test_it_says_how_much_of_its_part_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    run, said = Run(monkeypatch), list[float]()

    def come_so_far() -> None:
        said.append(run.saver.say() - WRITING)

    def write(slices: list[int], *, advance: Callable[[float], None], **_: Any) -> None:
        for share in (0.0, 0.25, 1.0):  # a leftover, a piece, the rest
            advance(share)
            come_so_far()

    def retain(*, advance: Callable[[], None], **_: Any) -> None:
        for _ in range(2):
            advance()
            come_so_far()

    monkeypatch.setattr(run.store, "write", write)
    monkeypatch.setattr(run.store, "retain", retain)
    run.saver._start(run.progress())
    assert run.saver._save
    assert run.saver._save.error() is None
    assert said == [1.0, 2.125, 3.5, 4.5, 5.5]


def test_who_fails_alone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others sit in the save's collectives, and would for ever."""
    run = Run(monkeypatch)
    run.store.go_on.clear()
    for _ in range(3):
        run.take_step()
    assert run.saver.say() == WRITING
    run.saver.hear(torch.tensor([WRITING, BROKEN]).double(), run.progress())
    assert run.told == [("checkpoint failed", 3, "step 3: another rank could not write; the next try is after step 4")]
    assert run.store.renewed == 1
    run.store.go_on.set()
    run.take_step()
    assert 4 in run.store.saved


def test_a_save_that_fell_due_among_skipped_steps_is_made_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.step = 4  # the next step is the fifth: three has been passed over
    run.take_step()
    assert run.store.saved == [5]
    run.take_step()
    assert run.store.saved == [5, 6]
