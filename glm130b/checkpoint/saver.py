"""When to save, while training goes on: a hook that starts saves and a voice by which all ranks hear how they ended."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import Thread

from torch import Tensor

from glm130b.checkpoint.description import Description
from glm130b.checkpoint.planner import Slice
from glm130b.checkpoint.storage import SaveFailed
from glm130b.checkpoint.store import CheckpointStore
from glm130b.config.patience import patiently
from glm130b.config.sections import CheckpointConfig
from glm130b.parallel.agreement import told_by_all
from glm130b.parallel.listening import Clock
from glm130b.parallel.topology import Topology
from glm130b.training.journal import Event, Journal
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress

IDLE, WRITTEN, FAILED, BROKEN, WRITING = 0.0, 1.0, 2.0, 3.0, 4.0
"""What a Saver says. Who has failed has told all others; who is broken could not. To WRITING is added how often the
rank has come further, and half the share of its own part that it has on the disk: the fraction of what is said."""
_POLL_SECONDS = 0.1


class _Save:
    """One save of one rank, and how it ended."""

    def __init__(self, step: int, *, patience_seconds: float) -> None:
        """``patience_seconds`` is for how long nothing may be written."""
        self.step = step
        self.stall_seconds = 0.0
        """What training waited for it."""
        self.seconds = 0.0
        """From its start until the checkpoint had its name."""
        self._begun = time.perf_counter()
        self._end: Future[None] = Future()
        self._num_advances, self._share = 0, 0.0
        self._patience_seconds = patience_seconds
        # A job that was suspended as a whole has not waited meanwhile: one look counts for a part of the patience.
        self._clock = Clock(patience_seconds / 10)
        self._heard: tuple[Tensor, float] | None = None

    def run(self, write: Callable[[], None]) -> None:
        self._run(write)
        self.stall_seconds = self.age_seconds

    def run_beside(self, write: Callable[[], None]) -> None:
        """On a thread that does not keep the process from ending: what it leaves half-written is in nobody's way."""
        Thread(target=self._run, args=(write,), name=f"checkpoint of step {self.step}", daemon=True).start()
        self.stall_seconds = self.age_seconds

    def advance(self, share: float) -> None:
        """``write`` has come further: this ``share`` of the rank's part is on the disk, or one more file is deleted."""
        self._share = share
        self._num_advances += 1

    def hangs(self, said: Tensor) -> bool:
        """Whether no rank has come any further for longer than the patience, by what each hearing tells."""
        now = self._clock.tick(self.age_seconds)
        if self._heard is None or not said.equal(self._heard[0]):
            self._heard = said, now
        return now - self._heard[1] > self._patience_seconds

    @property
    def age_seconds(self) -> float:
        """Since its start."""
        return time.perf_counter() - self._begun

    @property
    def state(self) -> float:
        if not self._end.done():
            return WRITING + self._num_advances + self._share / 2
        if (error := self._end.exception()) is None:
            return WRITTEN
        return FAILED if isinstance(error, SaveFailed) else BROKEN

    def error(self) -> BaseException | None:
        """What ended this rank's part, if it failed. Waits for its end."""
        return self._end.exception()

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:  # whatever it is, a save does not end the run
            self._end.set_exception(error)
        else:
            self.seconds = self.age_seconds
            self._end.set_result(None)


class Saver:
    """Saves every ``every_steps`` and after the last step; a hook and a voice.

    A save that fails leaves the run training: it is tried again ``retry_after_steps`` later, with the state of then. A
    save that is due while one is still being written is passed over with a word in the journal: to wait would be the
    stall that writing beside avoids, and the next one is due soon enough. Whether a save is under way follows from what
    was heard, so all ranks start, pass over and retry alike.

    A save may take as long as it likes while some rank writes, or deletes old checkpoints. When none has for
    ``stall_seconds`` it hangs, and the job ends: its thread could come to life later and move ``latest`` back, so no
    other save may begin in this process.
    """

    def __init__(
        self,
        store: CheckpointStore,
        describe: Callable[[Progress], Description],
        *,
        config: CheckpointConfig,
        train_samples: int,
        stall_seconds: float,
        topology: Topology,
        journal: Journal,
        retry_step: int | None = None,
        holds_back: Callable[[], bool] = lambda: False,
        expect: Callable[[float], None] = lambda seconds: None,
        enter: Callable[[str], None] = lambda phase: None,
    ) -> None:
        """``describe`` is asked on every rank, between two steps; ``enter`` tells the heartbeat of a long phase.

        ``retry_step`` is that of the saver before, whose promise this one keeps. Nothing is saved after a step where
        ``holds_back``: the run goes back from it. ``expect`` is told what every save has taken, in seconds.
        """
        self._store = store
        self._describe = describe
        self._config = config
        self._train_samples = train_samples
        self._stall_seconds = stall_seconds
        self._topology = topology
        self._journal = journal
        self._holds_back = holds_back
        self._expect = expect
        self._enter = enter
        self._save: _Save | None = None
        self._saved_step: int | None = None
        self._last_step = 0
        self._retry_step = retry_step

    @property
    def retry_step(self) -> int | None:
        """The step after which a save that failed is tried again."""
        return self._retry_step

    def before_training(self, progress: Progress) -> None:
        """What has been restored is saved already, and initial weights follow from the config."""
        self._saved_step = self._last_step = progress.step

    def after_step(self, progress: Progress, record: Record) -> None:
        is_due = self._is_due(progress.step)
        self._last_step = progress.step
        if self._holds_back():
            return
        if progress.samples >= self._train_samples:
            self.save_now(progress)
        elif is_due:
            if self._save:
                message = (
                    f"not saved: the checkpoint of step {self._save.step} is still being written, for "
                    f"{self._save.age_seconds / 60:.0f} min; step {self._saved_step} is the newest that is safe"
                )
                self._journal.tell(Event("checkpoint passed over", progress.step, message))
            else:
                self._start(progress)

    def say(self) -> float:
        return self._save.state if self._save else IDLE

    def hear(self, said: Tensor, progress: Progress) -> None:
        """``said`` [world]: once nobody is writing any more, all ranks take the save for written, or for failed.

        Where a rank has failed by itself, the others may wait for it in their save for ever: they are left there.
        Raises RuntimeError when the save hangs, on the rank that all others wait for: the job ends by its name.
        """
        is_broken = bool((said == BROKEN).any())
        if self._save is None:
            return
        if (said >= WRITING).any() and not is_broken:
            if self._save.hangs(said) and _furthest_behind(said) == self._topology.rank:
                raise RuntimeError(
                    f"the checkpoint of step {self._save.step} hangs on rank {self._topology.rank}: nothing of it has "
                    f"been written and nothing deleted for {self._stall_seconds:.0f} s (supervision.stall_seconds)"
                )
            return
        save, self._save = self._save, None
        if is_broken:
            self._store.renew_writers()
        if is_broken or bool((said == FAILED).any()):
            self._retry_step = progress.step + self._config.retry_after_steps
            message = f"step {save.step}: {_reason(save)}; the next try is after step {self._retry_step}"
            self._journal.tell(Event("checkpoint failed", progress.step, message))
        else:
            self._saved_step, self._retry_step = save.step, None
            self._expect(save.seconds)
            seconds = {"seconds": save.seconds, "stall_seconds": save.stall_seconds}
            message = f"step {save.step}, in {save.seconds:.1f} s of which training waited {save.stall_seconds:.1f} s"
            self._journal.tell(Event("checkpoint saved", progress.step, message, seconds))

    def settle(self, progress: Progress) -> None:
        """Wait until no save is under way. Collective."""
        while self._save:
            self._enter(f"waiting for the checkpoint of step {self._save.step}")  # each time: who asks is no hung rank
            self.hear(told_by_all([self.say()], self._topology)[:, 0], progress)
            time.sleep(_POLL_SECONDS if self._save else 0)

    def save_now(self, progress: Progress) -> None:
        """Have this moment of the run saved on return, before a process ends. Collective.

        Nothing else can be done meanwhile, so failures are waited out for ``patience_seconds``. Raises SaveFailed.
        """
        self.settle(progress)
        if progress.step == self._saved_step:
            return
        description, begun = self._describe(progress).to_json(), time.perf_counter()

        def write() -> None:
            self._enter(f"saving step {progress.step}")
            self._write(progress.step, self._store.live(), description)

        try:
            patiently(
                write,
                seconds=self._config.patience_seconds,
                may_pass=lambda error: isinstance(error, SaveFailed),
                tell=lambda message: self._journal.tell(Event("checkpoint failed", progress.step, message)),
            )
        except SaveFailed as error:
            raise SaveFailed(
                f"step {progress.step} could not be saved for {self._config.patience_seconds:.0f} s "
                f"(checkpoint.patience_seconds): {error}; the checkpoints before it are as they were"
            ) from error
        self._saved_step, self._retry_step = progress.step, None
        seconds = time.perf_counter() - begun
        self._expect(seconds)
        details = {"seconds": seconds, "stall_seconds": seconds}
        self._journal.tell(
            Event("checkpoint saved", progress.step, f"step {progress.step}, in {seconds:.1f} s", details)
        )

    def _is_due(self, step: int) -> bool:
        retry = self._retry_step is not None and step >= self._retry_step
        # Also where the steps between were passed over.
        return retry or step // self._config.every_steps > self._last_step // self._config.every_steps

    def _start(self, progress: Progress) -> None:
        self._enter(f"saving step {progress.step}")
        save = _Save(progress.step, patience_seconds=self._stall_seconds)
        self._save, self._retry_step = save, None
        description = self._describe(progress).to_json()
        if self._config.asynchronous:
            copy = self._store.copy()
            save.run_beside(lambda: self._write(progress.step, copy, description, save.advance))
        else:
            save.run(lambda: self._write(progress.step, self._store.live(), description))

    def _write(
        self, step: int, slices: list[Slice], description: str, advance: Callable[[float], None] = lambda share: None
    ) -> None:
        self._store.write(slices, step=step, description=description, advance=advance)
        try:
            self._store.retain(
                keep_last=self._config.keep_last,
                keep_every_steps=self._config.keep_every_steps,
                advance=partial(advance, 1.0),
            )
        except OSError as error:
            message = f"old checkpoints could not be deleted ({error}); after the next save it is tried again"
            self._journal.tell(Event("checkpoints kept", step, message))


def _furthest_behind(said: Tensor) -> int:
    """The rank of those still writing that has written the least; the first rank when all are at the commit."""
    return int((said % 1).where(said >= WRITING, math.inf).argmin())


def _reason(save: _Save) -> str:
    error = None if save.state >= WRITING else save.error()
    return "another rank could not write" if error is None else str(error) or repr(error)
