"""Processes that turn shards into tokens side by side. They hold numpy and a tokenizer, never torch."""

import fcntl
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from glm130b.config.errors import UserError
from glm130b.data.preparation.planning import Shard
from glm130b.data.preparation.tokenising import Job
from glm130b.data.reading.rejection import Damaged

_WORKERS_LOCK = "workers.lock"


class _Finished(NamedTuple):
    """What a worker says of a shard: nothing when all is well."""

    problem: str | None = None
    """A file that cannot be read to its end."""
    error: OSError | None = None
    """The shard cannot be written."""


def tokenise_all(job: Job, shards: Sequence[Shard], *, num_workers: int, advance: Callable[[int], None]) -> list[str]:
    """Write every shard; which worker does which depends on their speed, and the shards do not depend on it.

    Returns the files that cannot be read to their end, one sentence each. Raises OSError if a shard cannot be written
    and UserError if a worker dies. Other shards that are finished stay finished.
    """
    num_workers = min(num_workers, len(shards))
    if num_workers <= 1:
        return _tokenise_here(job, shards, advance)
    problems: list[str] = []
    waiting = deque(shards)
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(job)) for _ in range(num_workers)]
        for worker in workers:
            worker.give(waiting.popleft())
        while busy := {worker.pipe: worker for worker in workers if worker.shard}:
            for pipe in connection.wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]  # wait returns what it was given
                answer = worker.receive()
                if isinstance(answer, int):
                    advance(answer)
                    continue
                if answer.error:
                    raise answer.error
                problems += [answer.problem] if answer.problem else []
                if waiting:
                    worker.give(waiting.popleft())
    return sorted(problems)


def _tokenise_here(job: Job, shards: Sequence[Shard], advance: Callable[[int], None]) -> list[str]:
    """By this process: starting another takes longer than a small input."""
    problems = []
    tokenizer = job.load_tokenizer()
    for shard in shards:
        try:
            job.tokenise(shard, tokenizer, advance)
        except Damaged as error:
            problems.append(str(error))
    return problems


class _Worker:
    """A process that is given one shard after the other. It ends with its context, and when this process dies."""

    def __init__(self, job: Job) -> None:
        context = get_context("spawn")
        self.shard: Shard | None = None
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, job), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, shard: Shard) -> None:
        """Hand it its next shard."""
        self.shard = shard
        with suppress(BrokenPipeError):  # it has died, and receive will say so
            self.pipe.send(shard)

    def receive(self) -> int | _Finished:
        """Bytes of input that it has done, or the end of its shard. Raises UserError if it has died."""
        try:
            answer: int | _Finished = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise UserError(self._death(self._process.exitcode or 0)) from None
        if isinstance(answer, _Finished):
            self.shard = None
        return answer

    def _death(self, status: int) -> str:
        again = "the same command goes on where this one ended"
        if status == -signal.SIGKILL:
            mend = "as the kernel does when memory runs out; take fewer --workers or a smaller --longest-document"
            return f"{self.shard}: the worker that read it was killed, {mend}; {again}"
        how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return f"{self.shard}: the worker that read it ended {how}; {again}"

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pipe.close()
        if error is not None:
            self._process.terminate()
        self._process.join()


def _work(pipe: Connection, job: Job) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tokenizer = job.load_tokenizer()
    with _lock(job.folder.parent / _WORKERS_LOCK, fcntl.LOCK_SH), suppress(EOFError, BrokenPipeError):
        while True:
            shard: Shard = pipe.recv()
            try:
                job.tokenise(shard, tokenizer, pipe.send)
            except Damaged as error:
                pipe.send(_Finished(problem=str(error)))
            except BrokenPipeError:
                raise
            except OSError as error:
                pipe.send(_Finished(error=error))
            else:
                pipe.send(_Finished())


def _end_with_parent() -> None:
    """A parent that is killed takes its workers with it."""
    parent = parent_process()
    if parent:
        connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else prepares in this folder, and no worker of a run that was killed is at work there any more.

    Raises UserError if somebody does. Where the file system knows no locks, nothing is checked.
    """
    with _lock(folder / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
        with _lock(folder / _WORKERS_LOCK, fcntl.LOCK_EX):
            pass
        yield


@contextmanager
def _lock(file: Path, kind: int) -> Iterator[None]:
    """Holds a lock, which the kernel takes from a process that dies."""
    with file.open("wb") as stream:
        try:
            fcntl.flock(stream, kind)
        except BlockingIOError:
            raise UserError(f"{file.parent}: another `glm130b prepare` is at work in it; wait for its end") from None
        except OSError:
            pass  # a file system without locks
        yield
