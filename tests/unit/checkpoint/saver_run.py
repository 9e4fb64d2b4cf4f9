"""A saver and its run of one process, without a store behind it."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from glm130b.checkpoint import saver
from glm130b.checkpoint.saver import Saver
from glm130b.checkpoint.storage import SaveFailed
from glm130b.config import patience
from glm130b.config.sections import CheckpointConfig
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress

LAST = 1000
STALL = 60.0


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

    def write(self, slices: list[int], *, step: int, description: str, advance: Callable[[float], None]) -> None:
        self.go_on.wait(10)
        advance(1.0)
        if self.failures:
            self.failures -= 1
            raise SaveFailed("rank 3: [Errno 28] No space left on device")
        assert slices == [step] == [int(description)]
        self.saved += slices

    def retain(self, *, keep_last: int | None, keep_every_steps: int | None, advance: Callable[[], None]) -> None:
        self.retained.append((keep_last, keep_every_steps))


class Run:
    """A saver in a run of one process, step by step."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        start: int = 0,
        *,
        rank: int = 0,
        retry_step: int | None = None,
        **config: Any,
    ) -> None:
        self.store = Store()
        self.told: list[tuple[str, int, str]] = []
        self.phases: list[str] = []
        self.pauses: list[float] = []
        self.expected: list[float] = []
        self.step = start
        journal: Any = self
        store: Any = self.store
        topology: Any = SimpleNamespace(rank=rank)
        describe: Callable[[Progress], Any] = lambda progress: SimpleNamespace(to_json=lambda: str(progress.step))  # noqa: E731
        monkeypatch.setattr(saver, "told_by_all", lambda numbers, topology: torch.tensor([numbers]).double())
        monkeypatch.setattr(patience.time, "sleep", self.pauses.append)
        self.saver = Saver(
            store,
            describe,
            config=CheckpointConfig(**{"every_steps": 3, "retry_after_steps": 1, "patience_seconds": 7.0, **config}),
            train_samples=LAST,
            stall_seconds=STALL,
            topology=topology,
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
