"""Signs of life: a job in which one process hangs, or is gone without its launcher's knowledge, ends and says who.

Every process tells what it is at, from a thread of its own and over a connection of its own, so that a main thread that
waits in a collective does not silence it. The first rank hears all, the others hear the first rank; whoever finds a
process lost writes a verdict that all read, and every process ends, also where the main thread hangs.

The first rank's process may be the server that all this goes through. When that is gone or stopped, the connection
breaks or blocks: a second thread sees that the first gets no answer.
"""

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta

from glm130b.config.errors import UserError
from glm130b.config.supervision import SupervisionConfig
from glm130b.parallel.listening import Clock, JobEnd, Listener, Sign
from glm130b.parallel.meeting import Meeting

_MOST_SECONDS_BETWEEN_SIGNS = 2.0
_LONGER_THAN_A_SUSPENSION = timedelta(days=7)
_NO_VERDICT = "none"
_TURNS = (3.0, 8.0, 11.0)
"""Seconds that rank 1, a machine's first process, and the others wait before they tell what they cannot agree on any
more: a launcher ends them all as soon as one has ended, and the message is there once."""


class Heartbeat:
    """This process's voice and ear. ``enter`` is for the main thread, as often as it likes."""

    def __init__(self, meeting: Meeting, supervision: SupervisionConfig) -> None:
        launch = meeting.launch
        self._launch = launch
        self._silence_seconds = supervision.silence_seconds
        self._pause = min(supervision.silence_seconds / 10, _MOST_SECONDS_BETWEEN_SIGNS)
        self._listener = Listener(silence_seconds=supervision.silence_seconds, stall_seconds=supervision.stall_seconds)
        self._host = socket.gethostname()
        self._phase = ["start"]  # a new list for every phase: the same words again are a new phase
        self._failure: JobEnd | None = None
        self._exchanges = 0
        self._first_rank = Sign(0, "its machine is not known yet", "start", 0.0)
        self._told = threading.Event()
        self._closing = threading.Event()
        self._run_is_over = threading.Event()
        self._closed = threading.Event()

        self._store = meeting.store("heartbeat", timedelta(seconds=supervision.silence_seconds))
        self._heard_ranks = range(launch.world_size) if launch.rank == 0 else range(1)
        for key in ("verdict", *map(str, self._heard_ranks)):  # reading a key that is not there would wait for it
            self._store.compare_set(key, "", _NO_VERDICT if key == "verdict" else self._first_rank.to_text())
        # The guard judges an answer that is late. The store would take a suspension in the middle of it for a lateness.
        self._store.set_timeout(_LONGER_THAN_A_SUSPENSION)
        self._voice = threading.Thread(target=self._speak, name="heartbeat", daemon=True)
        self._voice.start()
        threading.Thread(target=self._guard, name="heartbeat guard", daemon=True).start()

    def enter(self, phase: str) -> None:
        """What this process is at from now on: ``forward and backward of step 12``."""
        self._phase = [phase]

    def failed(self, error: BaseException) -> None:
        """This process ends because of ``error``: the others end at once, and name it.

        The caller raises the error afterwards, so that this process tells it in full and ends with its own status.
        """
        where = f"rank {self._launch.rank} ({self._host})"
        if isinstance(error, UserError):
            message = "\n".join(f"glm130b: error on {where}: {problem}" for problem in error.problems)
            self._failure = JobEnd(self._launch.rank, message, error.exit_status, is_told=True)
        else:
            line = f"{type(error).__name__}: {error}".partition("\n")[0]
            self._failure = JobEnd(self._launch.rank, f"{where}: failed in {self._phase[0]}: {line}")
        self._closing.set()
        self._told.wait(2 * self._pause)

    def stand_by(self) -> None:
        """Wait for the end of a run that has no place for this process, and leave with the others.

        A launcher's warnings are for those who have something to save.
        """
        for warning in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(warning, signal.SIG_IGN)
        while not self._run_is_over.wait(self._pause):
            self.enter("standing by as a spare")
        self.close()

    def close(self) -> None:
        """This process has finished in good order. The first rank, which others may talk through, leaves last."""
        self._closing.set()
        self._voice.join()
        self._closed.set()

    def _speak(self) -> None:
        """One exchange after another until the run is over. In a thread of its own."""
        clock, phase, since, count = Clock(self._pause), self._phase, 0.0, 0
        try:
            while True:
                now = clock.tick(time.monotonic())
                if phase is not self._phase:
                    phase, since = self._phase, now
                closing, count = self._closing.is_set(), count + 1
                if self._failure:
                    self._announce(self._failure)
                    self._told.set()
                    return
                self._store.set(
                    str(self._launch.rank), Sign(count, self._host, phase[0], now - since, closing).to_text()
                )
                signs, verdict = self._listen()
                if verdict:
                    self._obey(verdict)
                    return
                if closing and all(sign.ended for sign in signs.values() if self._launch.rank == 0):
                    return
                if (found := self._listener.hear(signs, now)) and self._announce(found):
                    self._say(found)
                    time.sleep(2 * self._pause)  # the others read it while there is a server
                    self._leave(found)
                self._closing.wait(self._pause) if not closing else time.sleep(self._pause / 10)
        except RuntimeError:  # the connection broke
            if not self._closing.is_set():
                self._lament("the job's meeting point is gone")

    def _listen(self) -> tuple[dict[int, Sign], JobEnd | None]:
        *texts, verdict = (text.decode() for text in self._store.multi_get([*map(str, self._heard_ranks), "verdict"]))
        signs = {rank: Sign.from_text(text) for rank, text in zip(self._heard_ranks, texts, strict=True)}
        self._first_rank = signs[0]
        if signs[0].ended:
            self._run_is_over.set()
        self._exchanges += 1
        return signs, None if verdict == _NO_VERDICT else JobEnd.from_text(verdict)

    def _announce(self, verdict: JobEnd) -> bool:
        """Whether this verdict is the job's: the first one is."""
        own = replace(verdict, teller=self._launch.rank).to_text()
        return self._store.compare_set("verdict", _NO_VERDICT, own).decode() == own

    def _obey(self, verdict: JobEnd) -> None:
        """End because of another process, unless this one fails meanwhile and ends by itself."""
        speaks = self._launch.rank == 0
        if speaks and not verdict.is_told:
            self._say(verdict)
        # Who failed tells it in full, and is the one whose status the launcher sees first.
        if self._closing.wait(_TURNS[0]):
            return
        if speaks and verdict.is_told:  # it has not met it itself
            self._say(verdict)
        self._leave(verdict)

    def _guard(self) -> None:
        """See that the voice gets answers: it hangs when the server does. In a thread of its own."""
        clock, exchanges, since = Clock(self._pause), self._exchanges, 0.0
        while not self._closed.wait(self._pause):
            now = clock.tick(time.monotonic())
            if exchanges != self._exchanges or not self._voice.is_alive():
                exchanges, since = self._exchanges, now
            elif now - since > self._silence_seconds:
                self._lament(f"no sign of life for {now - since:.0f} s")

    def _lament(self, what: str) -> None:
        """The first rank, or the machine that keeps the meeting point, is lost, and nothing can be agreed on."""
        rank, last = self._launch.rank, self._first_rank
        verdict = JobEnd(0, f"rank 0 ({last.host}): {what}; last phase: {last.phase}")
        time.sleep(_TURNS[0] if rank == 1 else _TURNS[1] if self._launch.local_rank == 0 else _TURNS[2])
        self._say(verdict)
        self._leave(verdict)

    def _say(self, verdict: JobEnd) -> None:
        told = verdict.message if verdict.message.startswith("glm130b") else f"glm130b: error: {verdict.message}"
        # Not through sys.stderr, whose lock a main thread that hangs may hold.
        os.write(2, f"{told}\n".encode())

    def _leave(self, verdict: JobEnd) -> None:
        """End the process although its main thread may never return."""
        if verdict.rank == self._launch.rank:
            with contextlib.suppress(Exception):
                faulthandler.dump_traceback()  # where it hangs
        flushing = threading.Thread(target=_flush, daemon=True)
        flushing.start()
        flushing.join(1.0)
        os._exit(verdict.status)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
