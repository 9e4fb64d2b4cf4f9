"""Requests to end early, from outside: a signal, a stop file, or time that runs out. All ranks hear of them together.

SIGTERM, SIGUSR1     on any rank (Slurm: ``--signal=USR1@900`` warns 900 s before the job's limit)
touch FOLDER/stop    in the run's folder
a time budget        of the process: no step is begun that would end behind it, or leave no time for the save

What a save takes stands in the file ``save_seconds`` of the run's folder, and not in a checkpoint: a process whose only
save is its last knows it when that checkpoint is written, and the next process needs it before its own first one.
"""

import os
import signal
import time
from collections import deque
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from glm130b.training.progress import Progress

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_NOTHING, _STOP_FILE, _OUT_OF_TIME = 0.0, -1.0, -2.0
"""What is said; any other number is that of a signal."""
_ONE_REQUEST_SECONDS = 5.0
"""SIGTERMs within so long are one request: Slurm sends one to every process, and so does the launcher that got it."""
_RECENT_STEPS = 100


class Interruption:
    """A voice: knows why the run is to save and end, the same on every rank, once a roll call has heard it.

    As a context, in the main thread, it takes the two signals over. A second SIGTERM, some seconds after the first,
    ends the process at once, so that a save that hangs can be ended; a process that waits in a collective handles no
    signal before the collective returns.
    """

    def __init__(self, folder: Path, *, is_first_rank: bool, time_budget_minutes: float | None, started: float) -> None:
        """``folder`` is the run's; ``started`` is the ``time.monotonic()`` that the budget counts from."""
        self.reason: str | None = None
        """Why the run ends here, or None: "SIGUSR1 on rank 3", "stop file", "time budget of 30 minutes"."""
        self._stop_file = folder / "stop"
        self._save_seconds_file = folder / "save_seconds"
        self._looks = is_first_rank
        self._budget_minutes = time_budget_minutes
        self._started = started
        self._save_seconds = self._kept_save_seconds() if is_first_rank else 0.0
        self._said_at: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._signal: int | None = None
        self._first_sigterm: float | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def expect_save(self, seconds: float) -> None:
        """A save takes so long: time that the budget must leave, of this process and of the next."""
        self._save_seconds = seconds
        if self._looks:
            with suppress(OSError):  # the next process is late, and nothing else
                self._save_seconds_file.write_text(f"{seconds:.1f}\n", encoding="utf-8")

    def say(self) -> float:
        """What this rank knows; it is asked once after each step."""
        self._said_at.append(time.monotonic())
        if self._signal is not None:
            return float(self._signal)
        if not self._looks:
            return _NOTHING
        if self._stop_file_is_there():
            return _STOP_FILE
        return _OUT_OF_TIME if self._is_out_of_time() else _NOTHING

    def hear(self, said: Tensor, progress: Progress) -> None:
        """``said`` is float64 [world]. The first reason to be heard stays."""
        if self.reason is not None or not said.any():
            return
        self.reason = self._reason(said)
        if self._looks and said[0] == _STOP_FILE:
            with suppress(OSError):  # the next start must not be stopped by it
                self._stop_file.unlink(missing_ok=True)

    def _reason(self, said: Tensor) -> str:
        speakers: list[int] = said.nonzero().flatten().tolist()
        code = said[speakers[0]].item()
        if code == _STOP_FILE:
            return "stop file"
        if code == _OUT_OF_TIME:
            assert self._budget_minutes is not None
            return f"time budget of {self._budget_minutes:g} minutes"
        others = f" and {len(speakers) - 1} others" if len(speakers) > 1 else ""
        return f"{signal.Signals(int(code)).name} on rank {speakers[0]}{others}"

    def _note(self, number: int, frame: FrameType | None) -> None:
        """A handler runs between any two instructions of the main thread: it may only set attributes."""
        self._signal = number
        if number == signal.SIGTERM:
            now = time.monotonic()
            if self._first_sigterm is None:
                self._first_sigterm = now
            elif now - self._first_sigterm > _ONE_REQUEST_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

    def _kept_save_seconds(self) -> float:
        """As the process before has left them; 0 in the run's first one."""
        with suppress(OSError, ValueError):  # or cut short by a kill
            return float(self._save_seconds_file.read_text(encoding="utf-8"))
        return 0.0

    def _stop_file_is_there(self) -> bool:
        try:
            return self._stop_file.exists()
        except OSError:  # a file system that is away for a while stops nobody
            return False

    def _is_out_of_time(self) -> bool:
        """Whether one more step, as long as the longest of the recent ones, and a save would end behind the budget."""
        if self._budget_minutes is None:
            return False
        instants = tuple(self._said_at)
        longest = max((after - before for before, after in pairwise(instants)), default=0.0)
        return instants[-1] + longest + self._save_seconds > self._started + 60 * self._budget_minutes
