"""When a checkpoint is saved, and what a save that is slow or fails does to the run."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from glm130b.checkpoint import patience, saver
from glm130b.checkpoint.saver import BROKEN, FAILED, IDLE, WRITING, WRITTEN, Saver
from glm130b.checkpoint.storage import SaveFailed
from glm130b.config.sections import CheckpointConfig
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress

LAST = 1000


class Store:
    """Writes the steps that it copies, and fails or waits when told to."""

    def __init__(self) -> None:
        self.state = 0
        self.saved: list[int] = []
        self.retained: list[tuple[int | None, int | None]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.failures = 0
        self.renewed = 0

    def renew_writers(self) -> None:
        self.renewed += 1

    def live(self) -> list[int]:
        return [self.state]

    def copy(self) -> list[int]:
        return [self.state]

    def write(self, slices: list[int], *, step: int, description: str) -> None:
        self.go_on.wait(10)
        if self.failures:
            self.failures -= 1
            raise SaveFailed("rank 3: [Errno 28] No space left on device")
        assert slices == [step] == [int(description)]
        self.saved += slices

    def retain(self, *, keep_last: int | None, keep_every_steps: int | None) -> None:
        self.retained.append((keep_last, keep_every_steps))


class Run:
    """A saver in a run of one process, step by step."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, start: int = 0, *, retry_step: int | None = None, **config: Any
    ) -> None:
        self.store = Store()
        self.told: list[tuple[str, int, str]] = []
        self.phases: list[str] = []
        self.pauses: list[float] = []
        self.expected: list[float] = []
        self.step = start
        journal: Any = self
        store: Any = self.store
        describe: Callable[[Progress], Any] = lambda progress: SimpleNamespace(to_json=lambda: str(progress.step))  # noqa: E731
        monkeypatch.setattr(saver, "told_by_all", lambda numbers, topology: torch.tensor([numbers]).double())
        monkeypatch.setattr(patience.time, "sleep", self.pauses.append)
        self.saver = Saver(
            store,
            describe,
            config=CheckpointConfig(**{"every_steps": 3, "retry_after_steps": 1, "patience_seconds": 7.0, **config}),
            train_samples=LAST,
            topology=torch,  # type: ignore[arg-type]  (nobody asks for it here)
            journal=journal,
            retry_step=retry_step,
            expect=self.expected.append,
            enter=self.phases.append,
        )
        self.saver.before_training(Progress(step=start))

    def tell(self, event: Any) -> None:
        self.told.append((event.name, event.step, event.message))

    def take_step(self, *, is_last: bool = False) -> float:
        """What the saver said after it."""
        self.step += 1
        self.store.state = self.step
        progress = self.progress(is_last=is_last)
        self.saver.after_step(progress, Record("train", self.step, 0, {}))
        if self.store.go_on.is_set() and self.saver._save:
            self.saver._save.error()  # its thread has come to its end
        said = self.saver.say()
        self.saver.hear(torch.tensor([said]).double(), progress)
        return said

    def progress(self, *, is_last: bool = False) -> Progress:
        return Progress(step=self.step, samples=LAST if is_last else self.step)


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
    assert run.phases == ["saving step 3", "waiting for the checkpoint of step 3", "saving step 4"]


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
